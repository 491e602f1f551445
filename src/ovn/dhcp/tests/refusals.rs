//! The cases that no single rule of OVN makes: how a text is cut into names and values.

use super::*;

#[test]
fn a_text_that_cannot_be_cut_names_the_option_and_what_is_left_over() {
    let table = OptionTable::built_in();
    let error = |text: &str| DhcpOptions::parse(text, Family::V4, &table).expect_err(text);
    let cases = [
        ("mtu", "mtu", OptionFault::NoEquals),
        ("mtu 1400", "mtu", OptionFault::NoEquals),
        ("1400", "1400", OptionFault::NoEquals),
        ("=1400", "", unknown(None)),
        ("mtu=router=10.0.0.1", "mtu", number("router=10.0.0.1")),
        ("mtu= router=10.0.0.1", "mtu", OptionFault::Empty),
        ("mtu=;router=10.0.0.1", "mtu", OptionFault::Empty),
        ("mtu=1400 1500", "mtu", OptionFault::NoBraces("1500".to_owned())),
        ("dns_server={1.1.1.1", "dns_server", OptionFault::Unclosed('{')),
        ("dns_server={1.1.1.1}2", "dns_server", OptionFault::Trailing("2".to_owned())),
        ("dns_server=1.1.1.1}", "dns_server", OptionFault::Address("1.1.1.1}".to_owned())),
        ("dns_server={1.1.1.1,{8.8.8.8}}", "dns_server", OptionFault::Trailing("}".to_owned())),
        ("domain_name=\"a\"\"b\"", "domain_name", OptionFault::Trailing("\"b\"".to_owned())),
        ("\"mtu\"=1400", "\"mtu\"", unknown(Some("mtu"))),
        ("mtü=1400", "mtü", unknown(Some("mtu"))),
        ("mtu\u{a0}=1400", "mtu\u{a0}", unknown(Some("mtu"))),
        ("mtu={1400}", "mtu", OptionFault::Braces("{1400}".to_owned())),
    ];
    for (text, option, fault) in cases {
        assert_eq!(error(text), OptionError::new(Family::V4, option, fault), "{text}");
    }
}

fn unknown(nearest: Option<&str>) -> OptionFault {
    OptionFault::Unknown { nearest: nearest.map(ToOwned::to_owned), since: None, of_southbound: false }
}

fn number(value: &str) -> OptionFault {
    OptionFault::Number { value: value.to_owned(), fault: NumberFault::NotANumber, least: 68, most: 65_535 }
}

#[test]
fn a_refusal_goes_into_a_sentence_about_the_annotation() {
    let error = DhcpOptions::parse("mtu=70000", Family::V4, &OptionTable::built_in()).expect_err("too large");
    let sentence = format!("In the annotation x, {}. {}.", error.problem(), error.remedy());
    assert_eq!(
        sentence,
        "In the annotation x, the DHCPv4 option mtu is \"70000\", which is out of range. Write a whole number from 68 to 65535."
    );
}
