//! DHCP of VMs by real clients: the lease, its renewal by unicast and its rebinding by broadcast, and a migration.

use std::time::Duration;

use crate::support::fabric::{Client, Fabric, Guest};
use crate::support::lab::{Lab, Pointing};
use crate::support::stage::{DEFAULT_SWITCH, SUBNET};
use crate::support::{Binding, Port, Stage, VmOptions, holds_for};

const ROUTER: &str = "10.16.0.1";
/// A client asks once a second: so long without an answer is none.
const SILENCE: Duration = Duration::from_secs(3);

/// A switch with both families and a router, and a chassis.
async fn network(name: &str) -> (Stage, Fabric) {
    let config = [SUBNET[0], SUBNET[1], ("ipv6_prefix", "fd10:16::"), ("mtu", "1400")];
    let builder = Stage::build(name).switch_with(DEFAULT_SWITCH, &config).northd();
    let builder = builder.router(DEFAULT_SWITCH, &["10.16.0.1/16", "fd10:16::1/64"]);
    let flags = ["--dhcp-dns=10.16.0.53,fd10:16::53", "--dhcp-domain=corp.example"];
    let stage = builder.reads_southbound().flags(flags).start().await;
    let fabric = Fabric::start(&stage.northbound, 1).await;
    (stage, fabric)
}

/// The guest of a VM with a managed tap, with its addresses, and these.
async fn guest(stage: &Stage, fabric: &Fabric, vm: &str, annotations: &[(&str, &str)]) -> (Guest, [String; 2]) {
    let options = VmOptions::default().binding(Binding::ManagedTap);
    let options = annotations.iter().fold(options, |options, (key, value)| options.annotation(key, value));
    stage.player.create_vm(vm, options).await;
    stage.player.start(vm, "hv1").await;
    let is_bound = |port: &Port| port.option("requested-chassis") == Some("hv1");
    let port = stage.port_where(vm, "is bound", is_bound).await;
    let element = port.addresses.first().expect("addresses");
    let [mac, ipv4, ipv6] = element.split(' ').collect::<Vec<_>>()[..] else { panic!("{element}") };
    let mut guest = fabric.plug_bound(1, &port.name, mac, ipv4, Binding::ManagedTap);
    guest.wake();
    guest.with_ipv6();
    stage.northbound.nbctl(&["--wait=hv", "sync"]);
    (guest, [ipv4, ipv6].map(ToOwned::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_a_managed_tap_is_given_its_lease_and_the_networks_settings() {
    let (stage, fabric) = network("dhcp-lease").await;
    let (guest, ips) = guest(&stage, &fabric, "testvm", &[]).await;
    let [ipv4, ipv6] = ips.each_ref().map(String::as_str);
    let given = guest.dhcp(Client::Udhcpc).given(1).await;
    let names = ["ip", "mask", "router", "serverid", "dns", "mtu", "hostname", "domain", "lease"];
    let expected = [ipv4, "16", ROUTER, ROUTER, "10.16.0.53", "1400", "testvm", "corp.example", "3600"];
    assert_eq!(given.all(&names), expected, "{given:#?}");
    let given = guest.dhcp(Client::Dhclient).given(1).await;
    let names = ["new_ip_address", "new_routers", "new_domain_name_servers", "new_interface_mtu", "new_host_name"];
    assert_eq!(given.all(&names), [ipv4, ROUTER, "10.16.0.53", "1400", "testvm"], "{given:#?}");
    assert_eq!(given.get("new_domain_name"), "corp.example");
    let given = guest.dhcp(Client::Dhclient6).given(1).await;
    assert_eq!(given.all(&["new_ip6_address", "new_dhcp6_name_servers"]), [ipv6, "fd10:16::53"], "{given:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_by_unicast_and_rebound_by_broadcast_where_the_server_is_out_of_reach() {
    let (stage, fabric) = network("dhcp-renew").await;
    let own = "lease_time=60;T1=2;T2=4;domain_search_list=\"a.example,b.a.example\";ntp_server={10.16.0.3,10.16.0.4}";
    let (guest, ips) = guest(&stage, &fabric, "testvm", &[("ovn.kubernetes.io/dhcp-v4-options", own)]).await;
    let ipv4 = ips[0].as_str();
    let (asked, answered) = (format!("> REQUEST {ROUTER}"), format!("< ACK {ipv4}"));
    let client = guest.dhcp(Client::Udhcpc);
    let given = client.given(1).await;
    let names = ["ip", "lease", "search", "ntpsrv", "router", "mtu", "hostname"];
    let expected = [ipv4, "60", "a.example b.a.example", "10.16.0.3 10.16.0.4", ROUTER, "1400", "testvm"];
    assert_eq!(given.all(&names), expected, "{given:#?}");
    let ears = guest.ears();
    client.renew();
    let given = client.given(2).await;
    assert_eq!(given.all(&["ip", "lease"]), [ipv4, "60"], "{given:#?}");
    assert_eq!(ears.end(), [asked.clone(), answered.clone()]);
    drop(client);

    // By its own clock.
    let client = guest.dhcp(Client::Dhclient);
    client.given(1).await;
    let ears = guest.ears();
    let given = client.given(2).await;
    assert_eq!(given.all(&["reason", "new_ip_address"]), ["RENEW", ipv4], "{given:#?}");
    let heard = ears.end();
    assert!(heard.iter().all(|message| *message == asked || *message == answered), "{heard:?}");
    assert!(heard.contains(&asked) && heard.contains(&answered), "{heard:?}");
    let ears = guest.ears();
    guest.loses(ROUTER);
    // One answer may be on its way still. dhclient itself speaks of a RENEW, whatever way its request went.
    let given = client.given(client.told().len() + 2).await;
    assert_eq!(given.get("new_ip_address"), ipv4, "{given:#?}");
    let heard = ears.end();
    let end = heard.iter().position(|message| message == "> REQUEST 255.255.255.255").map(|at| &heard[at..]);
    assert!(end.is_some_and(|end| end.iter().any(|message| message.starts_with("< ACK"))), "{heard:?}");
}

/// The guest gets no lease for this time, and no server answers it.
async fn is_given_nothing(guest: &Guest) {
    let (ears, client) = (guest.ears(), guest.dhcp(Client::Udhcpc));
    holds_for("the client is given nothing", SILENCE, || async {
        let told = client.told();
        if told.is_empty() { Ok(()) } else { Err(format!("{told:#?}")) }
    })
    .await;
    drop(client);
    let heard = ears.end();
    assert!(heard.len() > 1 && heard.iter().all(|message| message == "> DISCOVER 255.255.255.255"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_migration_the_target_is_given_nothing_before_the_guest_announces_itself_and_the_source_nothing_after_it()
{
    let builder = Stage::build("dhcp-moves").router(DEFAULT_SWITCH, &["10.16.0.1/16"]);
    let mut lab = Lab::start(builder, Pointing::Service("rarp"), Binding::ManagedTap).await;
    let address = lab.address().to_owned();
    let source = lab.guest().dhcp(Client::Udhcpc);
    assert_eq!(source.given(1).await.get("ip"), address);
    let (migration, arriving) = lab.prepare("hv1", "hv2", None).await;
    is_given_nothing(&arriving).await;
    // A DISCOVER is no sign of the guest, and takes nothing from the source.
    lab.shows("moving hv1 -> hv2 (waiting for the guest)").await;
    source.renew();
    assert_eq!(source.given(2).await.all(&["event", "ip"]), ["renew", &address]);
    drop(source);
    let leaving = lab.cut_over(arriving, "hv2", Duration::ZERO).await;
    lab.reachable().await;
    let target = lab.guest().dhcp(Client::Udhcpc);
    assert_eq!(target.given(1).await.get("ip"), address);
    target.renew();
    assert_eq!(target.given(2).await.all(&["event", "ip"]), ["renew", &address]);
    lab.player.domain_ready(&migration).await;
    lab.player.succeed(&migration).await;
    lab.shows("on hv2").await;
    lab.flows_stand();
    is_given_nothing(&leaving).await;
    lab.unplug(leaving);
    target.renew();
    assert_eq!(target.given(3).await.all(&["event", "ip"]), ["renew", &address]);
    let again = lab.guest().dhcp(Client::Dhclient);
    assert_eq!(again.given(1).await.all(&["new_ip_address", "new_host_name"]), [address.as_str(), "testvm"]);
}
