//! DHCP options as they are encoded, before OVN itself: northd copies them into a logical flow, and `ovn-trace` reads
//! that flow with the parser of ovn-controller. What it cannot read is not in the trace.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::ovn::Southbound;
use ovn_kubevirt::ovn::dhcp::{DhcpOptions, Family, OptionTable, OptionType};
use ovn_kubevirt::ovsdb::{Connection, Session, Shared, Target};
use serde_json::json;

use crate::support::{Northbound, Stage, eventually};

/// The port, with an address of each family.
const PORT: &str = "guest";
const MAC: &str = "02:00:00:00:00:02";

/// A northbound with the port, and northd.
async fn northbound(name: &str) -> Arc<Northbound> {
    let northbound = Stage::build(name).northd().northbound().await;
    northbound.add_foreign_port("ovn-default", PORT, &[&format!("{MAC} 10.16.0.2 fd00::2")]);
    northbound
}

/// The southbound as the service follows it, until the connection is dropped.
async fn followed(northbound: &Northbound) -> (Arc<Shared<Southbound>>, Connection) {
    let target = Target {
        remotes: northbound.sb_remote().parse().expect("a remote"),
        tls: None,
        probe_interval: Duration::from_secs(5),
        leader_only: false,
    };
    let shared = Arc::new(Shared::new(Southbound::default()));
    let connection = Session::new(target, Arc::clone(&shared)).connect().await.expect("the southbound");
    (shared, connection)
}

/// The options that this OVN supports.
async fn supported(northbound: &Northbound) -> OptionTable {
    let (shared, _connection) = followed(northbound).await;
    shared.read().dhcp_options().clone()
}

/// The port gets these options, in the place of others.
fn give(northbound: &Northbound, family: Family, options: &[(&str, &str)]) {
    let cidr = match family {
        Family::V4 => "10.16.0.0/16",
        Family::V6 => "fd00::/64",
    };
    northbound.give_dhcp(PORT, cidr, options);
    northbound.sync_southbound();
}

/// What OVN's parser has read of the options when the port asks for an address: the arguments of the action.
fn read_by_ovn(northbound: &Northbound, family: Family) -> Option<String> {
    let (packet, action) = match family {
        Family::V4 => (
            "eth.dst == ff:ff:ff:ff:ff:ff && ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255 && \
             udp.src == 68 && udp.dst == 67",
            "put_dhcp_opts(",
        ),
        Family::V6 => (
            "eth.dst == 33:33:00:01:00:02 && ip6.src == fe80::ff:fe00:2 && ip6.dst == ff02::1:2 && \
             udp.src == 546 && udp.dst == 547",
            "put_dhcpv6_opts(",
        ),
    };
    let flow = format!("inport == \"{PORT}\" && eth.src == {MAC} && ip.ttl == 64 && {packet}");
    let mut trace = Command::new("ovn-trace");
    trace.arg(format!("--db={}", northbound.sb_remote())).args(["ovn-default", &flow]);
    let output = trace.output().expect("ovn-trace of the package ovn-common");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, after) = text.split_once(action)?;
    after.split_once(");\n").map(|(arguments, _)| arguments.to_owned())
}

/// A value of an option that has all that its type can have.
fn example(name: &str, kind: &OptionType) -> Option<&'static str> {
    Some(match (name, kind) {
        ("T1", _) => "4294967293",
        ("T2", _) => "4294967294",
        ("domain_name" | "hostname", _) => "\"web-1.a_b.example\"",
        ("domain_search", _) => "\"lan\"",
        ("policy_filter", _) => "{10.1.0.0,255.255.0.0}",
        ("server_id" | "next_server" | "swap_server" | "router_solicitation", OptionType::Ipv4) => "10.16.0.1",
        ("broadcast_address", _) => "10.16.255.255",
        (_, OptionType::Bool) => "1",
        (_, OptionType::Uint8) => "255",
        (_, OptionType::Uint16) => "65535",
        (_, OptionType::Uint32) => "4294967295",
        (_, OptionType::Ipv4) => "{1.1.1.1;8.8.8.8 9.9.9.9}",
        (_, OptionType::StaticRoutes) => "{30.0.0.0/24,10.16.0.1,0.0.0.0/0,10.16.0.9,10.9.8.7,0.0.0.0}",
        (_, OptionType::Str) => "\"tftp://[fd00::1]:69/a b?c=d&e=%20;{f},$g!'#@()*+<>|~`\"",
        (_, OptionType::HostId) => "\"tftp.example\"",
        (_, OptionType::Domains) => "\"a.example,b.a.example,example,corp\"",
        (_, OptionType::Ipv6) => "{FD00::9,2001:db8::1}",
        (_, OptionType::Mac) => "02:AB:cd:00:00:01",
        (_, OptionType::Domain) => "\"web-1.example\"",
        (_, OptionType::Switch | OptionType::Other(_)) => return None,
    })
}

/// The arguments as OVN writes them: the options in the order of their names, without those that are northd's.
fn expected(options: &DhcpOptions) -> String {
    let map = options.encode();
    let mut pairs: Vec<(&str, String)> = map.iter().map(|(name, value)| (name, value.to_owned())).collect();
    let first = match options.family() {
        Family::V4 => {
            pairs.retain(|(name, _)| *name != "server_mac");
            pairs.push(("netmask", "255.255.0.0".to_owned()));
            "offerip = 10.16.0.2"
        }
        Family::V6 => "ia_addr = fd00::2",
    };
    pairs.sort();
    pairs.into_iter().fold(first.to_owned(), |all, (name, value)| format!("{all}, {name} = {value}"))
}

#[tokio::test]
async fn every_option_of_this_ovn_is_read_by_its_parser_as_it_was_written() {
    let northbound = northbound("dhcp-written").await;
    let table = supported(&northbound).await;
    for family in [Family::V4, Family::V6] {
        let required = match family {
            Family::V4 => "server_id=10.16.0.1;server_mac=02:00:00:00:00:01;lease_time=4294967295",
            Family::V6 => "server_id=02:00:00:00:00:01",
        };
        let names = table.options(family).filter(|(name, _)| !required.contains(&format!("{name}=")));
        let pairs: Vec<String> =
            names.filter_map(|(name, kind)| Some(format!("{name}={}", example(name, kind)?))).collect();
        assert!(pairs.len() >= if family == Family::V4 { 34 } else { 2 }, "{pairs:?}");
        // Few at a time: an answer has room for so many.
        for pairs in pairs.chunks(8) {
            let text = format!("{required};{}", pairs.join(";"));
            let options = DhcpOptions::parse(&text, family, &table).unwrap_or_else(|error| panic!("{text}: {error}"));
            let map = options.encode();
            give(&northbound, family, &map.iter().collect::<Vec<_>>());
            assert_eq!(read_by_ovn(&northbound, family), Some(expected(&options)), "{text}");
        }
    }
    give(
        &northbound,
        Family::V4,
        &[
            ("server_id", "10.16.0.1"),
            ("server_mac", "02:00:00:00:00:01"),
            ("lease_time", "60"),
            ("tftp_server", "10.16.0.9"),
        ],
    );
    let read = read_by_ovn(&northbound, Family::V4).expect("DHCP");
    assert!(read.contains("tftp_server = 10.16.0.9"), "{read}");
}

/// What the parser of the service refuses because OVN's would: the row is written as an owner's text has it.
#[tokio::test]
async fn what_is_refused_because_of_ovns_parser_takes_dhcp_from_the_port() {
    let northbound = northbound("dhcp-refused").await;
    let table = supported(&northbound).await;
    let v4 = [("server_id", "10.16.0.1"), ("server_mac", "02:00:00:00:00:01"), ("lease_time", "60")];
    let v6 = [("server_id", "02:00:00:00:00:01")];
    for (family, name, value) in [
        (Family::V4, "foo", "1"),
        (Family::V4, "MTU", "1400"),
        (Family::V4, "mtu", "01442"),
        (Family::V4, "mtu", "-1"),
        (Family::V4, "mtu", "1400.5"),
        (Family::V4, "mtu", "\"1400\""),
        (Family::V4, "lease_time", "1h"),
        (Family::V4, "dns_server", "ns.example"),
        (Family::V4, "dns_server", "010.0.0.1"),
        (Family::V4, "dns_server", "\"1.1.1.1\""),
        (Family::V4, "domain_name", "a.b"),
        (Family::V4, "ip_forward_enable", "true"),
        (Family::V6, "mtu", "1400"),
        (Family::V6, "dns_server", "ns.example"),
        (Family::V6, "novel", "1"),
    ] {
        let required: &[(&str, &str)] = if family == Family::V4 { &v4 } else { &v6 };
        give(&northbound, family, required);
        assert!(read_by_ovn(&northbound, family).is_some(), "the port has {family}");
        let text = format!("{name}={value}");
        DhcpOptions::parse(&text, family, &table).expect_err(&text);
        let others = required.iter().filter(|(other, _)| *other != name);
        give(&northbound, family, &others.copied().chain([(name, value)]).collect::<Vec<_>>());
        assert_eq!(read_by_ovn(&northbound, family), None, "{text}");
    }
}

/// The table that is built in is that of the oldest OVN: each later one has its options, of the same types.
#[tokio::test]
async fn the_options_that_are_built_in_are_in_the_southbound_and_newer_ones_are_followed() {
    let northbound = northbound("dhcp-table").await;
    let (built_in, read) = (OptionTable::built_in(), supported(&northbound).await);
    for family in [Family::V4, Family::V6] {
        let read: Vec<(&str, &OptionType)> = read.options(family).collect();
        for option in built_in.options(family) {
            assert!(read.contains(&option), "{family} {option:?} is not in {read:?}");
        }
    }
    // An upgrade of OVN brings an option while the service runs. northd takes away what it does not know.
    let (shared, _connection) = followed(&northbound).await;
    assert!(shared.write().take_changes().dhcp_options);
    northbound.freeze_northd();
    let novel = json!({"name": "novel", "code": 200, "type": "str"});
    northbound.southbound().transact(json!([{"op": "insert", "table": "DHCP_Options", "row": novel}]));
    let has_novel = || shared.read().dhcp_options().options(Family::V4).any(|(name, _)| name == "novel");
    eventually("the option is known", || async { if has_novel() { Ok(()) } else { Err("not yet") } }).await;
    assert!(shared.write().take_changes().dhcp_options);
    northbound
        .southbound()
        .transact(json!([{"op": "delete", "table": "DHCP_Options", "where": [["name", "==", "novel"]]}]));
    eventually("the option is gone", || async { if has_novel() { Err("still there") } else { Ok(()) } }).await;
    assert!(shared.write().take_changes().dhcp_options);
    northbound.thaw_northd();
}
