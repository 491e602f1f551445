use super::*;
use crate::ipam::ranges::address;
use crate::ipam::{AddressSet, Pool};

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn free(subnet: &Subnet, taken: &[&str]) -> Option<String> {
    let mut pool = Pool::default();
    for address in taken {
        pool.hold(ip(address), 0);
    }
    let spans = |ipv4| subnet.spans(ipv4, None);
    let lowest = |ipv4| pool.lowest_free(&spans(ipv4), &[], &AddressSet::default());
    lowest(true).or_else(|| lowest(false)).map(|address| address.to_string())
}

#[test]
fn ranges_to_choose_from_are_cut_to_the_subnet_and_may_be_excluded() {
    let subnet = Subnet::new(Some("10.16.0.0/24"), Some("10.16.0.1..10.16.0.99"), Some("fd00::"), []);
    let subnet = subnet.expect("a subnet");
    let chosen = |pool: &str, ipv4| {
        let pool = pool.parse().expect(pool);
        let spans = subnet.spans(ipv4, Some(&pool));
        let ends = |span: &Span<'_>| format!("{}..{}", address(ipv4, span.first), address(ipv4, span.last));
        spans.iter().map(ends).collect::<Vec<_>>()
    };
    let wide = "10.16.0.50..10.16.0.60,10.15.0.0..10.16.0.9,10.17.0.0/16,fd00::5";
    assert_eq!(chosen(wide, true), ["10.16.0.1..10.16.0.9", "10.16.0.50..10.16.0.60"]);
    assert_eq!(chosen(wide, false), ["fd00::5..fd00::5"]);
    // A family without an entry is not limited.
    assert_eq!(chosen("10.16.0.50", false), ["fd00::2..fd00::ffff:ffff:ffff:ffff"]);
    assert!(subnet.northd_spares(true, &wide.parse().expect("a pool")));
    assert!(!subnet.northd_spares(true, &"10.16.0.90..10.16.0.100".parse().expect("a pool")));
}

#[test]
fn northd_allocates_excluded_addresses_that_it_cannot_read() {
    let subnet = |exclude| Subnet::new(Some("10.16.0.0/24"), Some(exclude), None, []).expect("a subnet");
    let spares = |exclude, pool: &str| subnet(exclude).northd_spares(true, &pool.parse().expect("a pool"));
    assert!(spares("10.16.0.5..10.16.0.6\t10.16.0.7", "10.16.0.5..10.16.0.7"));
    assert!(!spares("10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.5..10.16.0.7"));
    assert!(spares("10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.5..10.16.0.6"));
    assert!(!spares("10.16.0.0/28", "10.16.0.5"));
    // The first host address is spared without a word.
    assert!(spares("10.16.0.2", "10.16.0.1..10.16.0.2"));
    for exclude in ["10.16.0.5..10.16.0.6,10.16.0.7", "10.16.0.0/28"] {
        let subnet = subnet(exclude);
        assert!(subnet.block_of(ip("10.16.0.7")).is_some_and(|block| block.excludes(ip("10.16.0.7"))), "{exclude}");
    }
}

#[test]
fn the_lowest_address_is_after_the_first_and_the_excluded() {
    let plain = Subnet::new(Some("10.16.0.0/24"), None, None, []).expect("a subnet");
    assert_eq!(free(&plain, &[]).as_deref(), Some("10.16.0.2"));
    assert_eq!(free(&plain, &["10.16.0.2", "10.16.0.4"]).as_deref(), Some("10.16.0.3"));
    let excluded = Subnet::new(Some("10.16.0.0/24"), Some("10.16.0.1..10.16.0.9 10.16.0.11"), None, []);
    assert_eq!(free(&excluded.expect("a subnet"), &["10.16.0.10"]).as_deref(), Some("10.16.0.12"));
}

#[test]
fn the_first_host_address_is_named_and_never_chosen_however_small_the_subnet_is() {
    let of = |subnet: &str| {
        let (ipv4, ipv6) = if subnet.contains(':') { (None, Some(subnet)) } else { (Some(subnet), None) };
        Subnet::new(ipv4, None, ipv6, []).expect(subnet)
    };
    for (subnet, first, chosen) in [
        ("10.0.0.0/29", "10.0.0.1", Some("10.0.0.2")),
        ("10.0.0.0/30", "10.0.0.1", Some("10.0.0.2")),
        ("10.0.0.0/31", "10.0.0.0", Some("10.0.0.1")),
        ("10.0.0.7/32", "10.0.0.7", None),
        ("fd00::/64", "fd00::1", Some("fd00::2")),
        ("fd00::/127", "fd00::", Some("fd00::1")),
        ("fd00::7/128", "fd00::7", None),
    ] {
        let subnet = of(subnet);
        assert_eq!(free(&subnet, &[]).as_deref(), chosen, "{subnet}");
        assert!(subnet.block_of(ip(first)).is_some_and(|block| !block.excludes(ip(first))), "{subnet}");
        let pool = first.parse().expect(first);
        assert_eq!(subnet.spans(ip(first).is_ipv4(), Some(&pool)).len(), 1, "{subnet}");
        assert!(subnet.spans_held(ip(first).is_ipv4(), None).iter().any(|span| span.first == number(ip(first))));
    }
    // The router's own address on a link between two is known, and the other is the VM's.
    for (network, other) in [("10.0.0.1/31", "10.0.0.0"), ("10.0.0.0/31", "10.0.0.1"), ("fd00::1/127", "fd00::")] {
        let router = network.split_once('/').expect("a length").0;
        assert_eq!(free(&Subnet::new(None, None, None, [network]).expect(network), &[router]).as_deref(), Some(other));
    }
    let routed = Subnet::new(None, None, None, ["10.0.0.254/24", "fd00::fe/64"]).expect("a subnet");
    assert_eq!(free(&routed, &[]).as_deref(), Some("10.0.0.2"));
}

#[test]
fn a_full_block_has_no_free_address() {
    let subnet = Subnet::new(Some("10.0.0.0/30"), None, None, []).expect("a subnet");
    assert_eq!(free(&subnet, &["10.0.0.2"]), None);
    assert!(!subnet.blocks[0].holds(ip("10.0.0.3")) && !subnet.blocks[0].holds(ip("10.0.0.0")));
    let all = Subnet::new(None, None, Some("ffff:ffff:ffff:ffff::"), []).expect("a subnet");
    assert!(all.block_of(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).is_some());
}

#[test]
fn subnets_and_prefixes_are_read_as_northd_reads_them() {
    for text in
        ["10.16.0.0/24", "10.16.0.9/24", "010.16.00.0/24", "10.16.0.0/255.255.255.0", "10.16.0.0/024", " 10.16.0.0/24"]
    {
        let subnet = Subnet::new(Some(text), None, None, []).expect(text);
        assert_eq!((subnet.to_string().as_str(), subnet.unread()), ("10.16.0.0/24", &[][..]), "{text}");
    }
    for text in ["fd00:10::", "fd00:10::5", "fd00:10::/64", "fd00:10::/064", "fd00:10::/ffff:ffff:ffff:ffff::"] {
        let subnet = Subnet::new(None, None, Some(text), []).expect(text);
        assert_eq!((subnet.to_string().as_str(), subnet.unread()), ("fd00:10::/64", &[][..]), "{text}");
        assert_eq!(free(&subnet, &[]).as_deref(), Some("fd00:10::2"));
    }
    let unread = |key, text: &str| [Unread { key, text: text.to_owned() }];
    let subnet = Subnet::new(Some("10.16.0.0/24 "), None, None, []).expect("a subnet");
    assert_eq!(
        (subnet.to_string().as_str(), subnet.unread()),
        ("10.16.0.0/24", &unread("subnet", "10.16.0.0/24 ")[..])
    );
    let subnet = Subnet::new(None, None, Some(" fd00::"), []).expect("a subnet");
    assert_eq!((subnet.to_string().as_str(), subnet.unread()), ("fd00::/64", &unread("ipv6_prefix", " fd00::")[..]));
}

#[test]
fn router_networks_serve_a_switch_without_a_subnet() {
    let networks = ["10.0.0.1/24", "fe80::1/64", "fd00::1/64", "10.0.0.01/255.255.255.0"];
    let subnet = Subnet::new(None, None, None, networks).expect("a subnet");
    assert_eq!(subnet.to_string(), "10.0.0.0/24, fd00::/64");
    let subnet = Subnet::new(Some("10.9.0.0/24"), None, None, networks).expect("a subnet");
    assert_eq!(subnet.to_string(), "10.9.0.0/24");
}

#[test]
fn a_value_that_cannot_be_read_at_all_is_named() {
    let error = |subnet, prefix| Subnet::new(subnet, None, prefix, []).expect_err("an error");
    assert_eq!(error(None, None), SubnetError::Missing);
    for bad in [
        "10.0.0.0",
        "",
        "x",
        "10.0.0.0/33",
        "10.0.0.0/24,10.0.1.0/24",
        "10.0.0.0/255.0.255.0",
        "10.0.0.300/24",
        "fd00::/64",
    ] {
        assert_eq!(error(Some(bad), None), SubnetError::BadSubnet(bad.into()));
    }
    for bad in ["10.0.0.0", "", "fd00::/129", "fd00::/64 fd01::/64"] {
        assert_eq!(error(None, Some(bad)), SubnetError::BadPrefix(bad.into()));
    }
}

#[test]
fn one_bad_word_of_a_list_is_kept_for_the_operator_and_the_others_count() {
    let list = "10.0.0.2 x 10.0.0.9..10.0.0.4 10.9.0.0/16 fd00::9 10.0.0.3";
    let subnet = Subnet::new(Some("10.0.0.0/24"), Some(list), None, []).expect("a subnet");
    let unread: Vec<&str> = subnet.unread().iter().map(|unread| unread.text.as_str()).collect();
    assert_eq!(unread, ["x", "10.0.0.9..10.0.0.4", "10.9.0.0/16", "fd00::9"]);
    assert_eq!(free(&subnet, &[]).as_deref(), Some("10.0.0.4"));
    let list = format!("{} 10.0.0.2", "y".repeat(5_000) + &" x".repeat(5_000));
    let subnet = Subnet::new(Some("10.0.0.0/24"), Some(&list), None, []).expect("a subnet");
    assert_eq!((subnet.unread().len(), subnet.unread()[0].text.len()), (4, 103));
    assert_eq!(free(&subnet, &[]).as_deref(), Some("10.0.0.3"));
}
