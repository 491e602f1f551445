//! Pools that a VM's owner names (`ip_pool`), in every form.

use super::{IP_POOL, from_pool, has_seen};
use crate::support::{Stage, VmOptions};

const DUAL: [(&str, &str); 3] =
    [("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.1..10.16.0.9"), ("ipv6_prefix", "fd00:10:16::")];

#[tokio::test]
async fn a_pool_is_read_in_every_form_and_its_lowest_free_address_is_allocated() {
    let stage = Stage::build("pools").switch_with("ovn-default", &DUAL).every_address().start().await;
    for (vm, pool, expected) in [
        ("range", "10.16.0.40..10.16.0.41", ["10.16.0.40", "fd00:10:16::2"]),
        ("network", "10.16.0.66/30", ["10.16.0.64", "fd00:10:16::3"]),
        ("single", "10.16.0.80", ["10.16.0.80", "fd00:10:16::4"]),
        ("list", " 10.16.0.91 ,10.16.0.40..10.16.0.41, 10.16.0.80", ["10.16.0.41", "fd00:10:16::5"]),
        ("list-again", "10.16.0.91,10.16.0.40..10.16.0.41", ["10.16.0.91", "fd00:10:16::6"]),
        // A pool does not limit a family without an address in it.
        ("v6", "fd00:10:16::50..fd00:10:16::5f", ["10.16.0.10", "fd00:10:16::50"]),
        ("both", "fd00:10:16::50/124,10.16.0.100", ["10.16.0.100", "fd00:10:16::51"]),
        // Limited to the subnet, including the addresses of exclude_ips.
        ("wide", "10.15.0.0..10.16.0.3", ["10.16.0.1", "fd00:10:16::7"]),
        ("excluded", "10.16.0.1..10.16.0.9", ["10.16.0.2", "fd00:10:16::8"]),
    ] {
        stage.create(vm, from_pool(pool), &expected).await;
    }
    // Said of the network by its name, which is stronger; and an address is stronger than a pool.
    let named = from_pool("10.16.0.150").annotation("default.ovn.kubernetes.io/ip_pool", "10.16.0.160..10.16.0.161");
    stage.create("named", named.clone(), &["10.16.0.160", "fd00:10:16::9"]).await;
    let both = named.annotation("ovn.kubernetes.io/ip_address", "10.16.0.170");
    stage.create("static", both, &["10.16.0.170", "fd00:10:16::a"]).await;
}

#[tokio::test]
async fn a_pool_without_a_free_address_is_refused_and_served_as_soon_as_one_is_free() {
    let stage = Stage::build("no-pool").start().await;
    for (vm, pool, reason, words) in [
        ("typo", "10.16.0.40-10.16.0.41", "InvalidRequest", ["ip_pool", "10.16.0.40-10.16.0.41"]),
        ("reversed", "10.16.0.9..10.16.0.2", "InvalidRequest", ["ip_pool", "10.16.0.9..10.16.0.2"]),
        ("outside", "10.99.0.0/24", "InvalidRequest", ["10.99.0.0..10.99.0.255", "10.16.0.0/16"]),
        ("network", "10.16.0.0", "InvalidRequest", ["10.16.0.0", "10.16.0.0/16"]),
    ] {
        stage.player.create_vm(vm, from_pool(pool)).await;
        stage.problem(vm, reason, &words).await;
        assert_eq!(stage.northbound.port(&stage.name(vm)), None);
    }
    stage.create("first", from_pool("10.16.0.40..10.16.0.41"), &["10.16.0.40"]).await;
    stage.northbound.add_foreign_port("ovn-default", "printer", &["0a:00:00:00:00:01 10.16.0.41"]);
    has_seen(&stage, "first").await;
    stage.player.create_vm("second", from_pool("10.16.0.40..10.16.0.41")).await;
    stage.problem("second", "SubnetExhausted", &["10.16.0.40..10.16.0.41", "ovn-default"]).await;
    stage.northbound.delete_port("printer");
    stage.holding("second", &["10.16.0.41"]).await;
    stage.no_problem("second").await;
    // An address that a VM of ours releases rests, unless no other is free.
    stage.player.create_vm("third", from_pool("10.16.0.40..10.16.0.41")).await;
    stage.problem("third", "SubnetExhausted", &["10.16.0.40..10.16.0.41"]).await;
    stage.player.delete_vm("first").await;
    stage.holding("third", &["10.16.0.40"]).await;
    // A better pool is taken at once, and the refused VMs held none of the other addresses.
    stage.player.edit_template_annotation("outside", IP_POOL, Some("10.16.0.2")).await;
    stage.holding("outside", &["10.16.0.2"]).await;
    stage.create("plain", VmOptions::default(), &["10.16.0.3"]).await;
}
