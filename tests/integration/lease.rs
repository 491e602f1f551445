//! Leadership by a Lease of the real API server: `keep_lease` as the service runs it, several in one test.
//!
//! The decisions in every order of events are tested beside them (`src/controller/lease/tests.rs`).

mod candidate;
mod trouble;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::eventually::within;
use crate::support::{Cluster, Gate, eventually, holds_for, never};
use candidate::{Candidate, Log, Place, leaders, one_leads};
use ovn_kubevirt::controller::Leadership;

/// Far longer than a test takes: a process that leads sooner did not wait for its end.
const LONG: u32 = 300;
/// The longest time for "at once" on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_follower_takes_over_from_a_dead_leader_when_the_lease_has_run_out_and_not_before() {
    const SECONDS: u32 = 4;
    let lease = Duration::from_secs(SECONDS.into());
    let place = Place::new("dead").await;
    let first = place.candidate(SECONDS);
    one_leads(&[&first], 1).await;
    let others = [place.candidate(SECONDS), place.candidate(SECONDS)];
    for other in &others {
        other.follows(&first).await;
    }
    let killed = Instant::now();
    first.kill();
    let others: Vec<&Candidate> = others.iter().collect();
    within(lease * 2, "another leads", || async {
        match leaders(&others)[..] {
            [(_, 2)] => Ok(()),
            ref none => Err(format!("{none:?} {}", place.lease().await)),
        }
    })
    .await;
    // It was renewed at most a retry period before the end.
    assert!(killed.elapsed() > lease * 2 / 3, "after {:?}", killed.elapsed());
    assert_eq!(place.lease().await["spec"]["leaseTransitions"], json!(2));
    holds_for("one goes on leading", lease, || async {
        match leaders(&others)[..] {
            [(_, 2)] => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_withdraws_hands_over_at_once_and_quietly() {
    let (log, _guard) = Log::capture();
    let place = Place::new("withdrawn").await;
    let candidates: Vec<Candidate> = (0..5).map(|_| place.candidate(LONG)).collect();
    let all: Vec<&Candidate> = candidates.iter().collect();
    let mut leading = one_leads(&all, 1).await;
    for term in 2..6 {
        let leader = &candidates[leading];
        for other in all.iter().filter(|other| other.name != leader.name) {
            other.follows(leader).await;
        }
        let withdrawn = Instant::now();
        leader.stands(false);
        let next = within(AT_ONCE, "another leads at once", || async {
            match leaders(&all)[..] {
                [(index, leads)] if index != leading && leads == term => Ok(index),
                ref other => Err(format!("{other:?} {}", place.lease().await)),
            }
        })
        .await;
        println!("term {term} began {:?} after its predecessor was withdrawn", withdrawn.elapsed());
        leader.follows(&candidates[next]).await;
        leader.stands(true);
        leading = next;
    }
    let log = log.text();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    // A line a decision, and none a renewal or a lost race.
    assert_eq!(log.matches("this process leads lease").count(), 5, "{log}");
    assert_eq!(log.matches("this process leads no longer").count(), 4, "{log}");
    assert!(log.contains("this process no longer stands for the Lease"), "{log}");
}

#[tokio::test]
async fn no_candidate_leads_before_the_leader_has_published_that_it_leads_no_longer() {
    let place = Place::new("order").await;
    let leader = place.candidate(LONG);
    one_leads(&[&leader], 1).await;
    // The Lease is not to be reached from here: it cannot be given back, and no longer led.
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, through) = Gate::to_api_server(Cluster::shared().kubeconfig(), directory.path()).await;
    leader.kill();
    place.delete().await;
    let behind = place.candidate_through(&through, LONG).await;
    one_leads(&[&behind], 1).await;
    gate.shut();
    behind.stands(false);
    within(AT_ONCE, "it follows", || async {
        match behind.leadership() {
            Leadership::Follower { .. } => Ok(()),
            leads => Err(format!("{leads:?}")),
        }
    })
    .await;
    assert_eq!(place.lease().await["spec"]["holderIdentity"], json!(behind.name));
    gate.open();
    let released = eventually("the Lease is given back when the API server is there again", || async {
        let lease = place.lease().await;
        if lease["spec"]["holderIdentity"].is_null() { Ok(lease) } else { Err(lease) }
    })
    .await;
    assert_eq!(
        (&released["spec"]["leaseDurationSeconds"], &released["spec"]["leaseTransitions"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_and_ends() {
    let place = Place::new("stops").await;
    let mut candidates: Vec<Candidate> = (0..3).map(|_| place.candidate(LONG)).collect();
    for term in 1..=3 {
        let all: Vec<&Candidate> = candidates.iter().collect();
        let leading = within(AT_ONCE, "another leads at once", || async {
            match leaders(&all)[..] {
                [(index, leads)] if leads == term => Ok(index),
                ref other => Err(format!("{other:?} {}", place.lease().await)),
            }
        })
        .await;
        candidates.remove(leading).stop().await.expect("it ends well");
    }
    let lease = place.lease().await;
    assert_eq!(lease["spec"]["holderIdentity"], json!(null), "{lease}");
    assert_eq!((&lease["spec"]["leaseDurationSeconds"], &lease["spec"]["leaseTransitions"]), (&json!(1), &json!(3)));
    // A follower that never led leaves it as it is.
    let (leader, follower) = (place.candidate(LONG), place.candidate(LONG));
    let both = [&leader, &follower];
    let (leader, follower) = if one_leads(&both, 4).await == 0 { (leader, follower) } else { (follower, leader) };
    follower.stop().await.expect("it ends well");
    assert_eq!(place.lease().await["spec"]["holderIdentity"], json!(leader.name));
}

#[tokio::test]
async fn a_leader_that_cannot_renew_steps_down_before_another_may_lead_and_follows_later() {
    const SECONDS: u32 = 6;
    let (log, _guard) = Log::capture();
    let place = Place::new("deadline").await;
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, through) = Gate::to_api_server(Cluster::shared().kubeconfig(), directory.path()).await;
    let cut_off = place.candidate_through(&through, SECONDS).await;
    one_leads(&[&cut_off], 1).await;
    let other = place.candidate(SECONDS);
    other.follows(&cut_off).await;
    let both = [&cut_off, &other];
    gate.shut();
    let two_lead = never("two lead", Duration::from_secs(u64::from(SECONDS) * 2), || async {
        let leaders = leaders(&both);
        (leaders.len() > 1).then_some(leaders)
    });
    let stepped_down = async {
        within(Duration::from_secs(SECONDS.into()), "the leader steps down", || async {
            match cut_off.leadership() {
                Leadership::Follower { .. } => Ok(()),
                leads => Err(format!("{leads:?}")),
            }
        })
        .await;
        assert_eq!(other.leadership(), Leadership::Follower { leader: Some(cut_off.name.clone()) });
    };
    tokio::join!(two_lead, stepped_down);
    assert_eq!(leaders(&both), [(1, 2)]);
    let said = log.text();
    assert!(said.contains("the Lease could not be renewed for 4s"), "{said}");
    // Once for each new reason, not for each try: there were some ten.
    assert!((1..6).contains(&said.matches("trying again").count()), "{said}");
    gate.open();
    cut_off.follows(&other).await;
}

#[tokio::test]
async fn a_leader_that_stops_while_the_api_server_is_away_does_not_wait_for_it() {
    let (log, _guard) = Log::capture();
    let place = Place::new("stops-alone").await;
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, through) = Gate::to_api_server(Cluster::shared().kubeconfig(), directory.path()).await;
    let leader = place.candidate_through(&through, 6).await;
    one_leads(&[&leader], 1).await;
    gate.shut();
    let name = leader.name.clone();
    leader.stop().await.expect("it ends well");
    assert_eq!(place.lease().await["spec"]["holderIdentity"], json!(name));
    assert!(log.text().contains("the Lease could not be released"), "{}", log.text());
}

#[tokio::test]
async fn a_deleted_lease_is_created_again_as_a_new_term() {
    let place = Place::new("deleted").await;
    let candidates = [place.candidate(LONG), place.candidate(LONG)];
    let both = [&candidates[0], &candidates[1]];
    let mut leading = one_leads(&both, 1).await;
    for term in 2..5 {
        // A candidate that has seen a term goes on from there; another would begin at 1.
        both[1 - leading].follows(both[leading]).await;
        place.delete().await;
        leading = within(AT_ONCE, "a new term begins", || async {
            match leaders(&both)[..] {
                [(index, leads)] if leads == term => Ok(index),
                ref other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(place.lease().await["spec"]["leaseTransitions"], json!(term));
    }
}

#[tokio::test]
async fn a_label_on_the_lease_changes_no_leader_and_stays() {
    let place = Place::new("label").await;
    let candidates = [place.candidate(2), place.candidate(2)];
    let both = [&candidates[0], &candidates[1]];
    let leading = one_leads(&both, 1).await;
    let renewals = |lease: &serde_json::Value| lease["spec"]["renewTime"].as_str().map(ToOwned::to_owned);
    for round in 0..5 {
        let labelled = place.patch(json!({"metadata": {"labels": {"round": round.to_string()}}})).await;
        let renewed = renewals(&labelled);
        eventually("it is renewed with the label", || async {
            let lease = place.lease().await;
            let kept = lease["metadata"]["labels"]["round"] == json!(round.to_string());
            if kept && renewals(&lease) != renewed { Ok(()) } else { Err(lease) }
        })
        .await;
        assert_eq!(leaders(&both), [(leading, 1)]);
    }
}

#[tokio::test]
async fn a_foreign_holder_of_the_lease_ends_the_term_at_once() {
    let place = Place::new("foreign").await;
    let leader = place.candidate(2);
    one_leads(&[&leader], 1).await;
    place.patch(json!({"spec": {"holderIdentity": "somebody", "leaseTransitions": 7}})).await;
    within(AT_ONCE, "it follows", || async {
        match leader.leadership() {
            Leadership::Follower { leader: Some(name) } if name == "somebody" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // A holder that never renews it loses it.
    one_leads(&[&leader], 8).await;
}
