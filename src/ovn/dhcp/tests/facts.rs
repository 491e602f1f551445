//! What was measured to break DHCP on OVN 23.03 and 25.03: each line that an owner could write is refused by name.

use super::*;

/// The message of a refusal.
fn refused(text: &str, family: Family, table: &OptionTable) -> String {
    match DhcpOptions::parse(text, family, table) {
        Ok(options) => panic!("{text} is taken: {options}"),
        Err(error) => error.to_string(),
    }
}

/// Each text, and what its refusal names: the option, the value, the bound or the form.
fn assert_refused(family: Family, texts: &[(&str, &[&str])]) {
    for (text, names) in texts {
        let message = refused(text, family, &OptionTable::built_in());
        for name in *names {
            assert!(message.contains(name), "{text}: {message} does not name {name}");
        }
        // One fault is found beside good options, too, before and after them.
        let good = match family {
            Family::V4 => "router_discovery=1",
            Family::V6 if text.starts_with("dhcpv6_stateless") => "dns_server=fd00::9",
            Family::V6 => "dhcpv6_stateless=true",
        };
        assert_eq!(refused(&format!("{good};{text}"), family, &OptionTable::built_in()), message);
        assert_eq!(refused(&format!("{text};{good}"), family, &OptionTable::built_in()), message);
    }
}

#[test]
fn what_takes_dhcpv4_from_every_port_of_a_row_is_refused() {
    assert_refused(
        Family::V4,
        &[
            // An unknown key.
            ("foo=1", &["DHCPv4 option foo is unknown", "ovn-nb(5)"]),
            ("MTU=1400", &["option MTU is unknown", "Write mtu"]),
            ("dns-server=1.1.1.1", &["option dns-server is unknown", "Write dns_server"]),
            ("lease-time=60", &["option lease-time is unknown", "Write lease_time"]),
            ("domainname=\"a\"", &["option domainname is unknown", "Write domain_name"]),
            // A number that the lexer refuses.
            ("mtu=01442", &["mtu is \"01442\"", "leading zero", "Write mtu=1442."]),
            ("lease_time=1h", &["lease_time is \"1h\"", "unit", "Write lease_time=3600, in seconds."]),
            ("mtu=1442s", &["mtu is \"1442s\"", "unit", "from 68 to 65535"]),
            ("lease_time=-1", &["lease_time is \"-1\"", "negative", "from 1 to 4294967295"]),
            ("lease_time=3600.5", &["lease_time is \"3600.5\"", "fraction", "from 1 to 4294967295"]),
            ("mtu=0x5a2", &["mtu is \"0x5a2\"", "decimal", "from 68 to 65535"]),
            ("mtu=+1400", &["mtu is \"+1400\"", "decimal", "from 68 to 65535"]),
            ("mtu=\"1400\"", &["mtu is \"1400\" in quotation marks", "Write mtu=1400, without"]),
            // An empty value.
            ("mtu=", &["mtu has no value", "mtu="]),
            ("mtu= ", &["mtu has no value"]),
            ("dns_server={}", &["dns_server has no value"]),
            ("domain_name=\"\"", &["domain_name has no value"]),
            // A list without braces.
            ("dns_server=1.1.1.1,8.8.8.8", &["dns_server is followed by \"8.8.8.8\"", "dns_server={a,b}"]),
            ("dns_server=1.1.1.1;8.8.8.8", &["dns_server is followed by \"8.8.8.8\"", "dns_server={a,b}"]),
            // A string without inner quotation marks.
            ("domain_name=a.b", &["domain_name is a.b, a string without", "Write domain_name=\"a.b\""]),
            ("hostname=vm", &["hostname is vm, a string without", "Write hostname=\"vm\""]),
            ("domain_search_list=a.b", &["Write domain_search_list=\"a.b\""]),
            ("tftp_server=tftp.a.b", &["Write tftp_server=\"tftp.a.b\""]),
            ("wpad=http://a.b/", &["Write wpad=\"http://a.b/\""]),
            ("bootfile_name=a.pxe", &["Write bootfile_name=\"a.pxe\""]),
            ("path_prefix=/a", &["Write path_prefix=\"/a\""]),
            ("domain_name=\"a.b", &["domain_name", "begins with \" and does not end", "Add the \""]),
            ("domain_name={\"a.b\"}", &["domain_name is", "one value here, without braces"]),
            // An address that the lexer refuses.
            ("server_id=010.0.0.1", &["server_id is \"010.0.0.1\"", "leading zeros", "Write 10.0.0.1"]),
            ("server_id={10.0.0.1,10.0.0.2}", &["server_id has 2 addresses", "one"]),
            ("ntp_server=ntp.example", &["ntp_server is \"ntp.example\"", "IPv4 address", "no names"]),
            ("router=fd00::1", &["router is \"fd00::1\"", "IPv4 address"]),
            ("router=10.0.0.1/24", &["router is \"10.0.0.1/24\"", "IPv4 address"]),
            ("router=\"10.0.0.1\"", &["router is \"10.0.0.1\" in quotation marks"]),
            // A malformed server_mac is logged as offered, and the guest gets nothing.
            ("server_mac=0:0:0:0:0:1", &["server_mac is \"0:0:0:0:0:1\"", "unicast MAC", "two digits"]),
            ("server_mac=02-00-00-00-00-01", &["server_mac is \"02-00-00-00-00-01\"", "unicast MAC"]),
            ("server_mac=01:00:5e:00:00:01", &["server_mac is \"01:00:5e:00:00:01\"", "unicast MAC"]),
            ("server_mac=00:00:00:00:00:00", &["server_mac is \"00:00:00:00:00:00\"", "unicast MAC"]),
            ("server_mac=02:00:00:00:00:01:02", &["server_mac", "unicast MAC"]),
        ],
    );
}

#[test]
fn what_a_guest_would_get_otherwise_than_it_is_written_is_refused() {
    let (long, longer) = ("x".repeat(256), format!("wpad=\"{}\"", "x".repeat(300)));
    let long = format!("bootfile_name=\"{long}\"");
    let servers = vec!["10.0.0.1"; 64].join(",");
    let servers = format!("dns_server={{{servers}}}");
    assert_refused(
        Family::V4,
        &[
            // Numbers wrap: 4464, 0, 0, 44.
            ("mtu=70000", &["mtu is \"70000\"", "out of range", "from 68 to 65535"]),
            ("mtu=65536", &["mtu is \"65536\"", "from 68 to 65535"]),
            ("mtu=67", &["mtu is \"67\"", "from 68 to 65535"]),
            ("lease_time=4294967296", &["lease_time is \"4294967296\"", "from 1 to 4294967295"]),
            ("lease_time=99999999999999999999999", &["lease_time", "from 1 to 4294967295"]),
            ("lease_time=0", &["lease_time is \"0\"", "from 1 to 4294967295"]),
            ("lease_time=00", &["lease_time is \"00\"", "leading zero", "from 1 to 4294967295"]),
            ("default_ttl=300", &["default_ttl is \"300\"", "from 1 to 255"]),
            ("tcp_ttl=256", &["tcp_ttl is \"256\"", "from 1 to 255"]),
            ("netbios_node_type=256", &["netbios_node_type is \"256\"", "from 0 to 255"]),
            ("T1=4294967296", &["T1 is \"4294967296\"", "from 1 to 4294967295"]),
            ("arp_cache_timeout=4294967296", &["arp_cache_timeout", "from 0 to 4294967295"]),
            ("ip_forward_enable=2", &["ip_forward_enable is \"2\"", "0 or 1"]),
            ("ip_forward_enable=true", &["ip_forward_enable is \"true\"", "ip_forward_enable=1"]),
            // A string of 300 bytes is cut to 44.
            (&longer, &["wpad takes 300 bytes", "more than 255"]),
            (&long, &["bootfile_name takes 256 bytes", "more than 255"]),
            (&servers, &["dns_server takes 256 bytes", "more than 255"]),
            // Escapes, and what else the lexer or the guest reads otherwise.
            ("wpad=\"a\\nb\"", &["wpad", "the character \\", "backslashes"]),
            ("wpad=\"a^b\"", &["wpad", "the character ^", "circumflexes"]),
            ("wpad=\"a\nb\"", &["wpad", "the character \\n"]),
            ("wpad=\"a\u{7f}b\"", &["wpad", "the character \\u{7f}"]),
            ("wpad=\"größe\"", &["wpad", "the character ö"]),
            ("wpad=\"a\"b\"", &["wpad has \"b\\\"\" after the end of its value"]),
            // Only the first is sent.
            ("domain_search_list={\"a.b\",\"c.d\"}", &["domain_search_list", "one string"]),
            // Option 1 is sent twice.
            ("netmask=255.255.255.0", &["netmask is sent by OVN itself", "Remove it"]),
            ("offerip=10.0.0.9", &["offerip is sent by OVN itself", "Remove it"]),
            // The last of an odd number is left out, and bits after the prefix are cleared.
            (
                "classless_static_route={10.1.0.0/16}",
                &["classless_static_route has 1 elements", "network and a router"],
            ),
            ("ms_classless_static_route={10.1.0.0/16,10.0.0.1,10.2.0.0/16}", &["has 3 elements"]),
            ("classless_static_route={10.1.0.9/16,10.0.0.1}", &["\"10.1.0.9/16\"", "Write 10.1.0.0/16"]),
            ("classless_static_route={10.1.0.0/33,10.0.0.1}", &["\"10.1.0.0/33\"", "not an IPv4 network"]),
            ("classless_static_route={10.1.0.0/255.255.0.0,10.0.0.1}", &["not an IPv4 network"]),
            ("classless_static_route={10.1.0.0/16,gateway}", &["\"gateway\"", "not an IPv4 address"]),
            ("policy_filter={10.1.0.0}", &["policy_filter has 1 elements", "address and a mask"]),
            // A guest has no use for them.
            ("router=0.0.0.0", &["router is 0.0.0.0", "the address of a host"]),
            ("dns_server={1.1.1.1,255.255.255.255}", &["dns_server is 255.255.255.255"]),
            ("server_id=224.0.0.1", &["server_id is 224.0.0.1"]),
            ("mtu=1400;mtu=1500", &["mtu is there twice", "Remove one"]),
            ("T1=60;T2=60", &["T1 is 60", "less than T2 (60)"]),
            ("lease_time=60;T2=61", &["T2 is 61", "less than lease_time (60)"]),
        ],
    );
}

#[test]
fn what_ends_dhcpv6_or_is_useless_in_it_is_refused() {
    assert_refused(
        Family::V6,
        &[
            ("server_id=fd00::1", &["DHCPv6 option server_id is \"fd00::1\"", "unicast MAC", "six bytes"]),
            ("server_id=10.0.0.1", &["server_id is \"10.0.0.1\"", "unicast MAC"]),
            ("server_id=33:33:00:00:00:01", &["server_id is \"33:33:00:00:00:01\"", "unicast MAC"]),
            ("domain_search=\"a.b\"", &["domain_search is \"a.b\"", "one label", "domain_search_list"]),
            ("domain_search=a", &["Write domain_search=\"a\""]),
            ("fqdn=\"a.b\"", &["fqdn came with OVN 23.09", "OVN 23.03", "--sb"]),
            ("bootfile_name=\"a\"", &["bootfile_name came with OVN 23.06", "OVN 23.03", "--sb"]),
            ("bootfile_name_alt=\"a\"", &["bootfile_name_alt came with OVN 23.06"]),
            ("ia_addr=fd00::9", &["ia_addr is sent by OVN itself"]),
            ("dns_server=1.1.1.1", &["dns_server is \"1.1.1.1\"", "IPv6 address", "fd00::1"]),
            ("dns_server=::", &["dns_server is ::", "the address of a host"]),
            ("dns_server=ff02::1", &["dns_server is ff02::1"]),
            ("dns_server=::ffff:1.1.1.1", &["dns_server is ::ffff:1.1.1.1"]),
            ("dns_server=fe80::1%eth0", &["dns_server is \"fe80::1%eth0\""]),
            ("lease_time=60", &["lease_time is unknown"]),
            ("mtu=1400", &["mtu is unknown"]),
            ("dhcpv6_stateless=1", &["dhcpv6_stateless is \"1\"", "dhcpv6_stateless=true"]),
        ],
    );
    let message = refused("fqdn=\"a.b\"", Family::V6, &OptionTable::of_southbound([(Family::V6, "server_id", "mac")]));
    assert!(message.contains("this OVN does not have it") && message.contains("upgrade OVN"), "{message}");
    let message = refused("novel=1", Family::V6, &newer());
    assert!(message.contains("uint128") && message.contains("upgrade ovn-kubevirt"), "{message}");
}

/// OVN compresses a search list without looking at the last character of what it compares.
#[test]
fn names_that_a_guest_would_get_with_the_end_of_another_are_refused() {
    for (list, names) in [
        ("a.example.com,b.example.con", ["b.example.con after a.example.com", "Remove b.example.con"]),
        ("a.co,b.cn", ["b.cn after a.co", "Remove b.cn"]),
        ("a.b,c.d", ["c.d after a.b", "Remove c.d"]),
        ("lan,x.lab", ["x.lab after lan", "Remove x.lab"]),
    ] {
        assert_refused(Family::V4, &[(&format!("domain_search_list=\"{list}\""), &names)]);
    }
    for list in ["a.example,b.example", "example.com,a.example.com", "lan,corp", "a.com,a.com", "com.net,net.org"] {
        let text = format!("domain_search_list=\"{list}\"");
        assert_eq!(encoded(&text, Family::V4).as_ref(), Ok(&text));
    }
    let names: &[&str] = &["which is not a domain name", "63 letters"];
    for list in ["a..b", "-a", "a-", ",a", "a,", "a;b", "a b", &"a".repeat(64), &["a"; 128].join(".")] {
        assert_refused(Family::V4, &[(&format!("domain_search_list=\"{list}\""), names)]);
    }
    for name in ["hostname", "domain_name"] {
        assert_refused(Family::V4, &[(&format!("{name}=\"a_b c\""), names)]);
    }
}

#[test]
fn an_answer_has_to_fit_into_a_packet() {
    let fill = |names: &[&str], bytes: usize| {
        let text = "x".repeat(bytes);
        names.iter().map(|name| format!("{name}=\"{text}\"")).collect::<Vec<_>>().join(";")
    };
    let names = ["wpad", "bootfile_name", "bootfile_name_alt", "path_prefix"];
    assert!(encoded(&fill(&names, 223), Family::V4).is_ok());
    let error = encoded(&fill(&names, 224), Family::V4).expect_err("too much");
    assert_eq!(error.fault, OptionFault::AnswerTooLong { bytes: 904, most: 900 });
}
