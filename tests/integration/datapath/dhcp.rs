//! Real DHCP clients before real ovn-controllers: what guests are given.

use ovn_kubevirt::ovn::dhcp::{DhcpOptions, Family, OptionTable, hostname};

use crate::support::fabric::{Client, Fabric, Guest};
use crate::support::{Northbound, Stage};

const PORT: &str = "guest";
const MAC: &str = "02:00:00:00:00:02";
const IPV4: &str = "10.16.0.2";
const IPV6: &str = "fd00:16::2";

/// A guest on the port of another program, awake and with its addresses.
async fn guest(name: &str) -> (Guest, Fabric, std::sync::Arc<Northbound>) {
    let northbound = Stage::build(name).northd().northbound().await;
    let fabric = Fabric::start(&northbound, 1).await;
    northbound.add_foreign_port("ovn-default", PORT, &[&format!("{MAC} {IPV4} {IPV6}")]);
    let mut guest = fabric.plug(1, PORT, MAC, IPV4);
    guest.wake();
    guest.with_ipv6();
    (guest, fabric, northbound)
}

/// The port gets what the service makes of a text.
fn give(northbound: &Northbound, family: Family, text: &str) {
    let options = DhcpOptions::parse(text, family, &OptionTable::built_in());
    let map = options.unwrap_or_else(|error| panic!("{text}: {error}")).encode();
    let cidr = if family == Family::V4 { "10.16.0.0/16" } else { "fd00:16::/64" };
    northbound.give_dhcp(PORT, cidr, &map.iter().collect::<Vec<_>>());
    northbound.nbctl(&["--wait=hv", "sync"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_given_what_an_owner_writes() {
    let (guest, _fabric, northbound) = guest("dhcp-given").await;
    let name = hostname("web-1.prod").expect("a label");
    northbound.nbctl(&["lsp-set-options", PORT, &format!("hostname={name}")]);
    give(
        &northbound,
        Family::V4,
        "server_id=10.16.0.1;server_mac=02:00:00:00:00:01;lease_time=7200;router=10.16.0.1;mtu=1400;\
         dns_server={10.16.0.53,1.1.1.1};domain_name=\"corp.example\";domain_search_list=\"a.example, b.a.example,lan\";\
         ntp_server=10.16.0.123;wpad=\"http://w.example/p?q=x;y,z\";default_ttl=200;\
         classless_static_route={10.30.0.0/24,10.16.0.9,0.0.0.0/0,10.16.0.1}",
    );
    give(
        &northbound,
        Family::V6,
        "server_id=02:00:00:00:00:01;dns_server={fd00:16::53,2001:db8::53};domain_search=\"lan\"",
    );
    let given = guest.dhcp(Client::Udhcpc).given(1).await;
    let names = ["ip", "mask", "router", "serverid", "lease", "mtu", "dns", "hostname", "domain", "search", "ntpsrv"];
    assert_eq!(
        given.all(&names),
        [
            IPV4,
            "16",
            "10.16.0.1",
            "10.16.0.1",
            "7200",
            "1400",
            "10.16.0.53 1.1.1.1",
            "web-1",
            "corp.example",
            "a.example b.a.example lan",
            "10.16.0.123"
        ],
        "{given:#?}"
    );
    assert_eq!(given.get("wpad"), "http://w.example/p?q=x;y,z");
    assert_eq!(given.get("staticroutes"), "10.30.0.0/24 10.16.0.9 0.0.0.0/0 10.16.0.1");
    let given = guest.dhcp(Client::Dhclient).given(1).await;
    let names = [
        "ip_address",
        "subnet_mask",
        "routers",
        "dhcp_server_identifier",
        "dhcp_lease_time",
        "interface_mtu",
        "domain_name_servers",
        "host_name",
        "domain_name",
        "domain_search",
        "ntp_servers",
        "default_ip_ttl",
    ]
    .map(|name| format!("new_{name}"));
    assert_eq!(
        given.all(&names.each_ref().map(String::as_str)),
        [
            IPV4,
            "255.255.0.0",
            "10.16.0.1",
            "10.16.0.1",
            "7200",
            "1400",
            "10.16.0.53 1.1.1.1",
            "web-1",
            "corp.example",
            "a.example. b.a.example. lan.",
            "10.16.0.123",
            "200"
        ],
        "{given:#?}"
    );
    let given = guest.dhcp(Client::Dhclient6).given(1).await;
    let names = ["new_ip6_address", "new_dhcp6_name_servers", "new_dhcp6_domain_search"];
    assert_eq!(given.all(&names), [IPV6, "fd00:16::53 2001:db8::53", "lan."], "{given:#?}");
}

/// What is refused in a search list, and what a client would be given by it.
#[tokio::test(flavor = "multi_thread")]
async fn ovn_gives_a_name_the_end_of_another_that_differs_in_its_last_character() {
    let (guest, _fabric, northbound) = guest("dhcp-search").await;
    let required = [("server_id", "10.16.0.1"), ("server_mac", "02:00:00:00:00:01"), ("lease_time", "7200")];
    for (list, given) in [
        ("a.example.com,b.example.con", "a.example.com. b.example.com."),
        ("a.co,b.cn", "a.co. b.co."),
        ("lan,x.lab", "lan. x.lan."),
    ] {
        let text = format!("domain_search_list=\"{list}\"");
        DhcpOptions::parse(&text, Family::V4, &OptionTable::built_in()).expect_err(&text);
        let (_, value) = text.split_once('=').expect("a value");
        let options = [&required[..], &[("domain_search_list", value)]].concat();
        northbound.give_dhcp(PORT, "10.16.0.0/16", &options);
        northbound.nbctl(&["--wait=hv", "sync"]);
        let was = guest.dhcp(Client::Dhclient).given(1).await;
        assert_eq!(was.get("new_domain_search"), given, "{was:#?}");
    }
}
