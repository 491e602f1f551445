//! Members that are behind the client's last index: one that lags is refused, a cluster that was rolled back is read again.

use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::controller::follow_southbound;
use ovn_kubevirt::ovn;
use ovn_kubevirt::ovsdb::{Session, Shared, Target};
use serde_json::json;
use tokio::sync::watch;

use crate::support::ovsdb_server::{OvsdbServer, Seat};
use crate::support::{Northbound, eventually};

/// Longer than a leader that stays behind is refused, and far shorter than a follower.
const LONGER_THAN_A_CHANGE_OF_LEADER: Duration = Duration::from_secs(12);

fn target(remotes: &[String]) -> Target {
    let remotes = remotes.join(",").parse().expect("remotes");
    Target { remotes, tls: None, probe_interval: Duration::from_secs(5), leader_only: false }
}

#[tokio::test]
async fn a_follower_that_lags_is_refused_until_it_has_caught_up() {
    let northbound = Northbound::start_cluster().await;
    let leader = northbound.leader();
    let [follower, third] = [1, 2].map(|next| (leader + next) % 3);
    let members = northbound.members();
    let remotes = [leader, follower].map(|member| members[member].remote());
    let replica = Arc::new(Shared::new(ovn::Northbound::new("default")));
    let mut session = Session::new(target(&remotes), Arc::clone(&replica));
    let connection = session.connect().await.expect("the leader");
    northbound.cut_off(follower);
    northbound.add_switch("ovn-default", &[]);
    let has_all = |what: &'static str| {
        eventually(what, || async {
            let switches = replica.read().switches().count();
            if switches == 1 { Ok(()) } else { Err(switches) }
        })
    };
    has_all("the replica has what the leader has").await;
    members[leader].kill9();
    members[third].kill9();
    drop(connection);
    // It takes itself for a follower in touch until its election timer runs out.
    let begun = std::time::Instant::now();
    let mut reasons = Vec::new();
    while begun.elapsed() < LONGER_THAN_A_CHANGE_OF_LEADER {
        match session.connect().await {
            Ok(_) => panic!("connected to a follower that lags after {:?}: {reasons:?}", begun.elapsed()),
            Err(error) => reasons.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reasons.iter().any(|reason| reason.contains("behind")), "{reasons:?}");
    northbound.reconnect(follower);
    members[leader].start_again().await;
    members[third].start_again().await;
    let connection = eventually("a member that has all of it is connected to", {
        let session = Arc::new(tokio::sync::Mutex::new(session));
        move || {
            let session = Arc::clone(&session);
            async move {
                let mut session = session.lock().await;
                let connection = session.connect().await.map_err(|error| error.to_string())?;
                assert!(!session.rolled_back(), "it only lagged");
                Ok::<_, String>(connection)
            }
        }
    })
    .await;
    has_all("nothing was lost").await;
    drop(connection);
}

#[tokio::test]
async fn a_southbound_cluster_that_was_rolled_back_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut members, mut others) = (Vec::new(), Vec::new());
    for member in 1..=3 {
        let address = format!("unix:{}", dir.path().join(format!("sb{member}.raft")).display());
        let seat = Seat { address: address.clone(), namespace: None };
        let stem = format!("sb{member}");
        members.push(OvsdbServer::create_member(dir.path(), &stem, "OVN_Southbound", seat, &others).await);
        others.push(address);
    }
    for member in &members {
        eventually("a member is in touch with its cluster", async || {
            let row = member.membership()?;
            if row["connected"] == true { Ok(()) } else { Err(row.to_string()) }
        })
        .await;
    }
    let insert = async |name: &str| {
        let row = json!({"name": name, "hostname": name, "encaps": ["named-uuid", "encap"]});
        let ip = format!("127.0.0.{}", name.len());
        let encap = json!({"chassis_name": name, "type": "geneve", "ip": ip});
        let operations = json!([
            {"op": "insert", "table": "Encap", "uuid-name": "encap", "row": encap},
            {"op": "insert", "table": "Chassis", "row": row},
        ]);
        eventually("the chassis is added", || async { members[0].try_transact(operations.clone()).map(drop) }).await;
    };
    let swap_files = async |from: &str, to: &str| {
        for member in &members {
            member.stop().await;
        }
        for member in &members {
            std::fs::copy(member.file(from), member.file(to)).expect("the file is copied");
        }
        for member in &members {
            member.start_again().await;
        }
    };
    let replica = Arc::new(Shared::new(ovn::Southbound::default()));
    let (in_sync, synced) = watch::channel(None);
    let remotes: Vec<String> = members.iter().map(OvsdbServer::remote).collect();
    let following = tokio::spawn(follow_southbound(target(&remotes), Arc::clone(&replica), in_sync));
    let has = async |count: usize| {
        eventually(&format!("{count} chassis are in sync"), || async {
            let chassis = replica.read().chassis_count();
            let synced = *synced.borrow();
            if chassis == count && synced == Some(true) { Ok(()) } else { Err(format!("{chassis}, {synced:?}")) }
        })
        .await;
    };
    insert("a").await;
    has(1).await;
    swap_files("db", "copy").await;
    for name in ["bb", "ccc", "dddd", "eeeee"] {
        insert(name).await;
    }
    has(5).await;
    swap_files("copy", "db").await;
    has(1).await;
    insert("ffffff").await;
    has(2).await;
    following.abort();
}
