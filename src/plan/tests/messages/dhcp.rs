//! The refusals of DHCP options.

use super::{Example, Examples, map, one};
use crate::ovn::dhcp::{Family, NumberFault, OptionError, OptionFault};

impl Examples {
    fn option_faults(&self) -> Vec<Example<OptionFault>> {
        let text = |text| self.text(text);
        let network = "10.1.0.0/16".parse().expect("a network");
        examples!(OptionFault {
            OptionFault::Unknown { .. } => self.unknown_options(),
            OptionFault::UnknownType(_) => one(OptionFault::UnknownType(text("uint128")), ["uint128", "newer OVN"]),
            OptionFault::SetByOvn => one(OptionFault::SetByOvn, ["OVN itself"]),
            OptionFault::Twice => one(OptionFault::Twice, ["twice"]),
            OptionFault::Empty => one(OptionFault::Empty, ["no value", "mtu="]),
            OptionFault::NoEquals => one(OptionFault::NoEquals, ["no =", "mtu=1400;"]),
            OptionFault::NoBraces(_) => one(OptionFault::NoBraces(text("8.8.8.8")), ["\"8.8.8.8", "{a,b}"]),
            OptionFault::Unclosed(_) => [
                one(OptionFault::Unclosed('"'), ["begins with \"", "Add the \""]),
                one(OptionFault::Unclosed('{'), ["begins with {", "Add the }"]),
            ]
            .concat(),
            OptionFault::Trailing(_) => one(OptionFault::Trailing(text("b")), ["\"b", "semicolon"]),
            OptionFault::Braces(_) => one(OptionFault::Braces(text("{1400}")), ["{1400}", "without braces"]),
            OptionFault::NotQuoted(_) => one(OptionFault::NotQuoted(text("a.b")), ["a.b", "quotation marks"]),
            OptionFault::Quoted(_) => one(OptionFault::Quoted(text("1400")), ["\"1400", "without quotation marks"]),
            OptionFault::Bool(_) => one(OptionFault::Bool(text("yes")), ["\"yes", "0 or 1"]),
            OptionFault::Switch(_) => one(OptionFault::Switch(text("1")), ["\"1", "true or false"]),
            OptionFault::Number { .. } => self.numbers(),
            OptionFault::Address(_) => one(OptionFault::Address(text("ntp")), ["\"ntp", "address", "names"]),
            OptionFault::AddressZeros { .. } => one(
                OptionFault::AddressZeros { value: text("010.0.0.1"), plain: [10, 0, 0, 1].into() },
                ["\"010.0.0.1", "leading zeros", "Write 10.0.0.1"],
            ),
            OptionFault::NotUnicast(_) => one(OptionFault::NotUnicast([0, 0, 0, 0].into()), ["0.0.0.0", "host"]),
            OptionFault::OneAddress(_) => one(OptionFault::OneAddress(2), ["2 addresses", "one address"]),
            OptionFault::Pairs(_) => one(OptionFault::Pairs(3), ["3 elements", "pairs"]),
            OptionFault::Network(_) => one(OptionFault::Network(text("10.1")), ["\"10.1", "network"]),
            OptionFault::HostBits { .. } => one(
                OptionFault::HostBits { value: text("10.1.0.9/16"), network },
                ["\"10.1.0.9/16", "Write 10.1.0.0/16"],
            ),
            OptionFault::Mac(_) => one(OptionFault::Mac(text("0:1")), ["\"0:1", "unicast MAC", "02:00:00:00:00:01"]),
            OptionFault::Character { .. } => one(
                OptionFault::Character { value: text("a^"), character: '^' },
                ["\"a^", "character ^", "ASCII"],
            ),
            OptionFault::Domain(_) => one(OptionFault::Domain(text("a..b")), ["\"a..b", "domain name", "63"]),
            OptionFault::OneLabel(_) => one(OptionFault::OneLabel(text("a.b")), ["\"a.b", "domain_search_list"]),
            OptionFault::SameButLast { .. } => one(
                OptionFault::SameButLast { first: text("a.co"), second: text("b.cn") },
                ["b.cn", "a.co", "last character"],
            ),
            OptionFault::TooLong { .. } => one(OptionFault::TooLong { bytes: 300, most: 255 }, ["300 bytes", "255"]),
            OptionFault::AnswerTooLong { .. } => one(
                OptionFault::AnswerTooLong { bytes: 999, most: 900 },
                ["999 bytes", "900", "remove options"],
            ),
            OptionFault::NotLess { .. } => one(
                OptionFault::NotLess { value: 60, than: "T2", limit: 59 },
                ["60", "less than T2 (59)", "larger T2"],
            ),
        })
    }

    fn unknown_options(&self) -> Vec<Example<OptionFault>> {
        let unknown = |nearest: Option<&str>, since, of_southbound| OptionFault::Unknown {
            nearest: nearest.map(|name| self.text(name)),
            since,
            of_southbound,
        };
        [
            one(unknown(Some("dns_server"), None, true), ["unknown", "Write dns_server"]),
            one(unknown(None, None, false), ["unknown", "ovn-nb(5)"]),
            one(unknown(None, Some("23.09"), true), ["OVN 23.09", "upgrade OVN"]),
            one(unknown(None, Some("23.09"), false), ["OVN 23.09", "OVN 23.03", "--sb"]),
        ]
        .concat()
    }

    fn numbers(&self) -> Vec<Example<OptionFault>> {
        let number = |value, fault| OptionFault::Number { value: self.text(value), fault, least: 68, most: 65_535 };
        let [range, padded] = ["from 68 to 65535", "01400"];
        [
            one(number(padded, NumberFault::LeadingZero), ["\"01400", "leading zero"]),
            one(number("-1", NumberFault::Negative), ["\"-1", "negative", range]),
            one(number("1.5", NumberFault::Fraction), ["\"1.5", "fraction", range]),
            one(number("1h", NumberFault::Unit(Some(3_600))), ["\"1h", "unit", "mtu=3600", "seconds"]),
            one(number("1h", NumberFault::Unit(None)), ["\"1h", "unit", range]),
            one(number("x", NumberFault::NotANumber), ["\"x", "decimal number", range]),
            one(number("70000", NumberFault::OutOfRange), ["\"70000", "out of range", range]),
        ]
        .concat()
    }

    /// Each fault, of the option `mtu` of both families.
    pub(super) fn option_errors(&self) -> Vec<Example<OptionError>> {
        let of =
            |family| map(self.option_faults(), move |fault| OptionError { family, option: "mtu".to_owned(), fault });
        let mut examples = [of(Family::V4), of(Family::V6)].concat();
        examples.iter_mut().for_each(|(error, named)| {
            named.push(format!("The {} option mtu", error.family));
        });
        let list = |option: &str, fault, name: &str| {
            let error = OptionError { family: Family::V4, option: option.to_owned(), fault };
            (error, vec![option.to_owned(), name.to_owned()])
        };
        examples.push(list("domain_search_list", OptionFault::Braces("{}".to_owned()), "one string"));
        examples.push(list("policy_filter", OptionFault::Pairs(1), "a mask"));
        let (option, fault) = (self.text("m"), OptionFault::Twice);
        examples.push((OptionError { family: Family::V4, option, fault }, vec!["option m".to_owned()]));
        examples
    }
}
