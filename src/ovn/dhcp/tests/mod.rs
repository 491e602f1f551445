//! Owners' texts, read and written again: by example, by property, and by what was measured on real OVNs.

mod facts;
mod properties;
mod refusals;

use super::*;

/// What is written into the row for a text, in the order of the names.
fn encoded(text: &str, family: Family) -> Result<String, OptionError> {
    encoded_by(text, family, &OptionTable::built_in())
}

fn encoded_by(text: &str, family: Family, table: &OptionTable) -> Result<String, OptionError> {
    let options = DhcpOptions::parse(text, family, table)?.encode();
    Ok(options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";"))
}

/// What a southbound of OVN 25.03 has more of.
fn newer() -> OptionTable {
    let built_in = OptionTable::built_in();
    let names: Vec<&str> = built_in.options(Family::V6).map(|(name, _)| name).collect();
    assert_eq!(names, ["dhcpv6_stateless", "dns_server", "domain_search", "server_id"]);
    OptionTable::of_southbound([
        (Family::V6, "ia_addr", "ipv6"),
        (Family::V6, "server_id", "mac"),
        (Family::V6, "dns_server", "ipv6"),
        (Family::V6, "domain_search", "str"),
        (Family::V6, "bootfile_name", "str"),
        (Family::V6, "bootfile_name_alt", "str"),
        (Family::V6, "fqdn", "domain"),
        (Family::V6, "novel", "uint128"),
    ])
}

#[test]
fn every_option_is_read_and_written_as_ovns_lexer_wants_it() {
    for (text, written) in [
        ("lease_time=3600", "lease_time=3600"),
        ("lease_time=4294967295", "lease_time=4294967295"),
        ("mtu=68", "mtu=68"),
        ("mtu=65535", "mtu=65535"),
        ("default_ttl=255", "default_ttl=255"),
        ("arp_cache_timeout=0", "arp_cache_timeout=0"),
        ("router=10.0.0.1", "router=10.0.0.1"),
        ("router={10.0.0.1}", "router=10.0.0.1"),
        ("dns_server={1.1.1.1,8.8.8.8}", "dns_server={1.1.1.1, 8.8.8.8}"),
        // The order is the owner's.
        ("dns_server={ 8.8.8.8 1.1.1.1 }", "dns_server={8.8.8.8, 1.1.1.1}"),
        ("dns_server={8.8.8.8;1.1.1.1}", "dns_server={8.8.8.8, 1.1.1.1}"),
        ("server_mac=00:00:00:2E:2F:B8", "server_mac=00:00:00:2e:2f:b8"),
        ("domain_name=\"a.b\"", "domain_name=\"a.b\""),
        ("domain_name=\"a.b.\"", "domain_name=\"a.b\""),
        ("domain_search_list=\"a.example, b.example.\"", "domain_search_list=\"a.example,b.example\""),
        ("hostname=\"web-1\"", "hostname=\"web-1\""),
        ("wpad=\"http://a.b/p?q={x};y,z\"", "wpad=\"http://a.b/p?q={x};y,z\""),
        ("bootfile_name=\"a b.pxe\"", "bootfile_name=\"a b.pxe\""),
        ("tftp_server=\"tftp.a.b\"", "tftp_server=\"tftp.a.b\""),
        ("tftp_server=10.0.0.9", "tftp_server=10.0.0.9"),
        ("ip_forward_enable=1", "ip_forward_enable=1"),
        ("router_discovery=0", "router_discovery=0"),
        ("broadcast_address=255.255.255.255", "broadcast_address=255.255.255.255"),
        ("policy_filter={10.1.0.0,255.255.0.0}", "policy_filter={10.1.0.0, 255.255.0.0}"),
        (
            "classless_static_route={30.0.0.0/24,10.0.0.10, 0.0.0.0/0,10.0.0.1, 10.9.9.9,0.0.0.0}",
            "classless_static_route={30.0.0.0/24, 10.0.0.10, 0.0.0.0/0, 10.0.0.1, 10.9.9.9/32, 0.0.0.0}",
        ),
    ] {
        assert_eq!(encoded(text, Family::V4).as_deref(), Ok(written), "{text}");
    }
    for (text, written) in [
        ("server_id=00:00:00:2E:2F:C5", "server_id=00:00:00:2e:2f:c5"),
        ("dns_server=FD00::0001", "dns_server=fd00::1"),
        ("dns_server={fd00::1,fe80::1}", "dns_server={fd00::1, fe80::1}"),
        // One label is sent as it has to be.
        ("domain_search=\"lan\"", "domain_search=\"lan\""),
        ("dhcpv6_stateless=true", "dhcpv6_stateless=true"),
    ] {
        assert_eq!(encoded(text, Family::V6).as_deref(), Ok(written), "{text}");
    }
    for (text, written) in [
        ("fqdn=\"a.b\"", "fqdn=\"a.b\""),
        ("bootfile_name=\"tftp://[fd00::1]/a\"", "bootfile_name=\"tftp://[fd00::1]/a\""),
    ] {
        assert_eq!(encoded_by(text, Family::V6, &newer()).as_deref(), Ok(written), "{text}");
    }
}

#[test]
fn kube_ovns_form_and_that_of_ovn_nbctl_are_read_alike() {
    let written = "dns_server={1.1.1.1, 8.8.8.8};domain_name=\"a.b\";lease_time=3600;router=10.0.0.1";
    for text in [
        "lease_time=3600;router=10.0.0.1;dns_server={1.1.1.1,8.8.8.8};domain_name=\"a.b\"",
        "lease_time=3600,router=10.0.0.1,dns_server={1.1.1.1;8.8.8.8},domain_name=\"a.b\"",
        "lease_time=3600, router=10.0.0.1, dns_server={1.1.1.1, 8.8.8.8}, domain_name=\"a.b\",",
        "lease_time=3600 router=10.0.0.1 dns_server={1.1.1.1 8.8.8.8} domain_name=\"a.b\"",
        "lease_time = 3600\nrouter\t= 10.0.0.1\r\n\ndns_server ={1.1.1.1\n8.8.8.8}\n;; domain_name= \"a.b\"\n",
    ] {
        assert_eq!(encoded(text, Family::V4).as_deref(), Ok(written), "{text:?}");
    }
    for nothing in ["", " ", ";,\n"] {
        assert_eq!(encoded(nothing, Family::V4).as_deref(), Ok(""), "{nothing:?}");
    }
}

#[test]
fn a_default_stands_where_the_owner_wrote_nothing_and_is_checked_with_the_rest() {
    let table = OptionTable::built_in();
    let mut options = DhcpOptions::parse("mtu=1400;T1=2000", Family::V4, &table).expect("options");
    options.set_default("mtu", Value::Number(1442));
    options.set_default("dns_server", Value::Ipv4(Vec::new()));
    options.set_default("server_id", Value::Ipv4(vec![Ipv4Addr::new(10, 0, 0, 1)]));
    options.set_default("server_mac", Value::Mac(MacAddr6::new(2, 0, 0, 0, 0, 1)));
    assert_eq!(options.to_string(), "T1=2000;mtu=1400;server_id=10.0.0.1;server_mac=02:00:00:00:00:01");
    assert_eq!(options.server_ip(), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(options.server_mac(), Some(MacAddr6::new(2, 0, 0, 0, 0, 1)));
    assert_eq!(options.check(), Ok(()));
    options.set_default("lease_time", Value::Number(1800));
    let fault = OptionFault::NotLess { value: 2000, than: "lease_time", limit: 1800 };
    assert_eq!(options.check(), Err(OptionError::new(Family::V4, "T1", fault)));
    assert_eq!(options.remove("T1"), Some(Value::Number(2000)));
    assert_eq!(options.check(), Ok(()));
    let v6 = DhcpOptions::parse("server_id=02:00:00:00:00:02", Family::V6, &table).expect("options");
    assert_eq!((v6.server_ip(), v6.server_mac()), (None, Some(MacAddr6::new(2, 0, 0, 0, 0, 2))));
}

#[test]
fn a_host_name_is_the_first_label_of_the_vms_name_in_quotation_marks() {
    let long = "a".repeat(62) + "-b";
    for (name, value) in [
        ("vm", Some("\"vm\"")),
        ("web-1.prod", Some("\"web-1\"")),
        ("0a", Some("\"0a\"")),
        ("", None),
        (".a", None),
        ("-a", None),
        ("a_b", None),
        ("a b", None),
        ("a\"b", None),
        ("größe", None),
    ] {
        assert_eq!(hostname(name).as_deref(), value, "{name}");
    }
    assert_eq!(hostname(&"a".repeat(64)), Some(format!("\"{}\"", "a".repeat(63))));
    assert_eq!(hostname(&long), Some(format!("\"{}\"", "a".repeat(62))));
    assert_eq!(hostname(&"ä".repeat(64)), None);
}

#[test]
fn a_table_of_the_southbound_counts_and_an_empty_one_does_not() {
    let read = newer();
    assert!(read.kind(Family::V6, "fqdn").is_ok() && read.kind(Family::V4, "mtu").is_ok());
    let other = OptionTable::of_southbound([(Family::V4, "mtu", "uint16")]);
    assert!(other.kind(Family::V4, "router").is_err() && other.kind(Family::V4, "server_mac").is_ok());
    assert_eq!(OptionTable::of_southbound([]), OptionTable::built_in());
}
