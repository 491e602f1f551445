//! Guests look names up in OVN: ovn-controller answers on the guest's own chassis, whatever server is asked.

use crate::support::stage::{DEFAULT_SWITCH, SUBNET};
use crate::support::{Fabric, Stage, VmOptions, eventually};

/// A guest of another program on the switch.
const GUEST: (&str, &str, &str) = ("asker", "0a:00:00:00:00:01", "10.16.9.9");
/// A server that is not there.
const SERVER: (&str, &str) = ("10.16.9.53", "0a:00:00:00:00:35");

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_looks_up_the_addresses_of_a_vm_and_the_name_of_an_address() {
    let subnet = [SUBNET[0], SUBNET[1], ("ipv6_prefix", "fd10:16::")];
    let flags = ["--dns-domain", "vm.test", "--dns-interval", "1s"];
    let builder = Stage::build("dig").switch_with(DEFAULT_SWITCH, &subnet).northd().reads_southbound().flags(flags);
    let stage = builder.start().await;
    let fabric = Fabric::start(&stage.northbound, 1).await;
    let (port, mac, address) = GUEST;
    stage.northbound.add_foreign_port(DEFAULT_SWITCH, port, &[&format!("{mac} {address}")]);
    let mut guest = fabric.plug(1, port, mac, address);
    guest.knows(SERVER.0, SERVER.1);
    guest.wake();
    stage.player.create_vm("testvm", VmOptions::default()).await;
    let text = stage.port("testvm").await.addresses.first().cloned().expect("addresses");
    let [_, ipv4, ipv6] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let name = format!("testvm.{}.vm.test", stage.namespace.name);
    let asked = |question: &[&str]| guest.dig(SERVER.0, &[&["+noedns"], question].concat());
    eventually("the name has an address", || async {
        let answer = asked(&[&name, "A"]);
        if answer == [ipv4] { Ok(()) } else { Err(format!("{answer:?}\n{}", stage.northbound.dump())) }
    })
    .await;
    assert_eq!(asked(&[&name, "AAAA"]), [ipv6]);
    assert_eq!(asked(&[&name.to_uppercase(), "A"]), [ipv4], "names are read in any case");
    assert_eq!(asked(&[&format!("default.{name}"), "A"]), [ipv4]);
    assert_eq!(asked(&["-x", ipv4]), [format!("{name}.")]);
    assert_eq!(asked(&["-x", ipv6]), [format!("{name}.")]);
    // What the chapter for operators says of the limits: no other kind of question, and no TCP.
    let is_answered = |answer: Vec<String>| answer.iter().any(|line| !line.starts_with(";;"));
    assert!(!is_answered(asked(&[&name, "MX"])));
    assert!(!is_answered(asked(&["+tcp", &name, "A"])));
    assert!(!is_answered(asked(&[&format!("nobody.{name}"), "A"])));
    let ttl = guest.dig(SERVER.0, &["+noedns", "+noshort", "+noall", "+answer", &name, "A"]);
    assert_eq!(ttl.first().and_then(|line| line.split_whitespace().nth(1)), Some("3600"), "{ttl:?}");
    // Without its lease it has no name.
    stage.player.delete_vm("testvm").await;
    eventually("the name is gone", || async {
        let answer = asked(&[&name, "A"]);
        if is_answered(answer.clone()) { Err(format!("{answer:?}")) } else { Ok(()) }
    })
    .await;
}
