//! Properties of any text.

use proptest::prelude::*;

use super::*;
use crate::ovn::mac_text;

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn ipv4() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<[u8; 4]>().prop_map(|bytes| Ipv4Addr::from(bytes).to_string()),
        1 => prop::sample::select(vec!["0.0.0.0", "255.255.255.255", "010.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "10.0.0"])
            .prop_map(ToOwned::to_owned),
    ]
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        ipv4(),
        any::<u32>().prop_map(|number| number.to_string()),
        (0_u32..300).prop_map(|number| number.to_string()),
        any::<[u8; 6]>().prop_map(|bytes| mac_text(MacAddr6::from(bytes))),
        any::<[u8; 16]>().prop_map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        "[a-d]{1,3}(\\.[a-d]{1,3}){0,2}",
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,1}(,[a-c]{1,2}(\\.[a-c]{1,2}){0,1}){0,3}",
        prop::sample::select(vec!["0", "1", "true", "false", "1h", "-1", "", "a\\b", "a^b"])
            .prop_map(ToOwned::to_owned),
        "\\PC{0,6}",
    ]
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        words(),
        words().prop_map(|word| format!("\"{word}\"")),
        prop::collection::vec(words(), 0..5).prop_map(|words| format!("{{{}}}", words.join(","))),
    ]
}

/// Values of a type, most of which are right.
fn values_of(kind: &OptionType) -> BoxedStrategy<String> {
    let list = |element: BoxedStrategy<String>| {
        prop::collection::vec(element, 1..4).prop_map(|list| format!("{{{}}}", list.join(", "))).boxed()
    };
    let quoted = |pattern: &'static str| pattern.prop_map(|text: String| format!("\"{text}\"")).boxed();
    match kind {
        OptionType::Bool => "[01]".boxed(),
        OptionType::Uint8 => "[1-9][0-9]{0,2}".boxed(),
        OptionType::Uint16 => "[1-9][0-9]{1,4}".boxed(),
        OptionType::Uint32 => "[1-9][0-9]{0,9}".boxed(),
        OptionType::Ipv4 => prop_oneof![ipv4().boxed(), list(ipv4().boxed())].boxed(),
        OptionType::StaticRoutes => {
            let network = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(bytes, length)| {
                ipnet::Ipv4Net::new(Ipv4Addr::from(bytes), length).expect("a length").trunc().to_string()
            });
            list((network, ipv4()).prop_map(|(network, via)| format!("{network},{via}")).boxed())
        }
        OptionType::Str | OptionType::HostId | OptionType::Domain => quoted("[a-z0-9.]{1,9}|[ -~]{1,300}"),
        OptionType::Domains => quoted("[a-c]{1,2}(\\.[a-c]{1,2}){0,1}(,[a-c]{1,2}(\\.[a-c]{1,2}){0,1}){0,3}"),
        OptionType::Ipv6 => {
            list(any::<[u8; 16]>().prop_map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()).boxed())
        }
        OptionType::Mac => "[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}".boxed(),
        OptionType::Switch => "true|false".boxed(),
        OptionType::Other(_) => values().boxed(),
    }
}

/// Texts that are nearly right: a known name with a value of any type.
fn texts() -> impl Strategy<Value = (Family, String)> {
    families().prop_flat_map(|family| {
        let table = OptionTable::built_in();
        let right: Vec<BoxedStrategy<(String, String)>> =
            table.options(family).map(|(name, kind)| (Just(name.to_owned()), values_of(kind)).boxed()).collect();
        let mut names: Vec<String> = table.options(family).map(|(name, _)| name.to_owned()).collect();
        names.extend(["foo", "netmask", "MTU", ""].map(ToOwned::to_owned));
        let any = (prop::sample::select(names), values());
        let separators = prop::sample::select(vec![";", ",", " ", "; ", "\n"]);
        let entry = prop_oneof![4 => proptest::strategy::Union::new(right), 1 => any];
        let entry = (entry, separators).prop_map(|((name, value), separator)| format!("{name}={value}{separator}"));
        (Just(family), prop::collection::vec(entry, 0..4).prop_map(|entries| entries.concat()))
    })
}

/// Checks that what is read is written in the lexer's alphabet, and is read again as the same.
fn check(text: &str, family: Family) -> Result<bool, TestCaseError> {
    let table = OptionTable::built_in();
    let options = match DhcpOptions::parse(text, family, &table) {
        Ok(options) => options,
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.chars().all(|character| !character.is_control()), "{message:?}");
            prop_assert!(message.ends_with('.') && message.contains(". "), "{message:?}");
            return Ok(false);
        }
    };
    let again = options.to_string();
    let read = DhcpOptions::parse(&again, family, &table);
    prop_assert_eq!(read.as_ref(), Ok(&options), "{} -> {}", text, again);
    for (name, value) in options.encode().iter() {
        prop_assert!(table.kind(family, name).is_ok(), "{name}");
        let inside = value.strip_prefix('"').map(|inside| inside.strip_suffix('"').expect("a closing mark"));
        let is_bare = |character: char| character.is_ascii_alphanumeric() || ".:/{}, ".contains(character);
        let is_quoted = |character: char| matches!(character, ' '..='~') && !"\"\\^".contains(character);
        match inside {
            Some(inside) => prop_assert!(!inside.is_empty() && inside.chars().all(is_quoted), "{value}"),
            None => prop_assert!(!value.is_empty() && value.chars().all(is_bare), "{value}"),
        }
        let is_padded =
            |word: &str| word.len() > 1 && word.starts_with('0') && word.bytes().all(|byte| byte.is_ascii_digit());
        prop_assert!(inside.is_some() || !value.split([',', ' ', '{', '}', '.', '/']).any(is_padded), "{value}");
    }
    Ok(!options.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_read_is_written_so_that_it_is_read_again((family, text) in texts()) {
        check(&text, family)?;
    }

    #[test]
    fn no_text_is_too_much(text in any::<String>(), family in families()) {
        check(&text, family)?;
    }

    #[test]
    fn no_text_of_marks_is_too_much(text in "[a-z=\"{};, \\n\\\\0-9.:/]{0,40}", family in families()) {
        check(&text, family)?;
    }

    #[test]
    fn a_host_name_is_a_quoted_label(name in "[a-z0-9.\\-]{0,70}|\\PC{0,70}") {
        if let Some(value) = hostname(&name) {
            let label = value.trim_matches('"');
            prop_assert_eq!(value.len(), label.len() + 2);
            prop_assert!((1..=63).contains(&label.len()) && name.starts_with(label));
            prop_assert_eq!(encoded(&format!("hostname={value}"), Family::V4), Ok(format!("hostname={value}")));
        }
    }
}

/// A generator of nothing but faults would prove nothing.
#[test]
fn most_kinds_of_options_are_read_by_the_property() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut read = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let (family, text) = texts().new_tree(&mut runner).expect("a text").current();
        if let Ok(options) = DhcpOptions::parse(&text, family, &OptionTable::built_in()) {
            read.extend(options.iter().map(|(name, _)| format!("{family} {name}")));
        }
    }
    let table = OptionTable::built_in();
    let known = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| table.options(family).map(move |(name, _)| format!("{family} {name}")).collect::<Vec<_>>());
    let missing: Vec<String> = known.filter(|name| !read.contains(name)).collect();
    assert_eq!(missing, [""; 0]);
}
