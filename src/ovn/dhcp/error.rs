//! The reasons why a text with DHCP options is refused, as data, and their sentences.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::table::Family;
use crate::escaped::Escaped;

/// A DHCP option that would not do what its text says.
///
/// Its message is two sentences, as [`OptionError::problem`] and [`OptionError::remedy`] have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The family.
    pub family: Family,
    /// The option's name, as it is written.
    pub option: String,
    /// The fault.
    pub fault: OptionFault,
}

/// The fault of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionFault {
    /// OVN has no such option.
    Unknown {
        /// A known name that is spelled alike.
        nearest: Option<String>,
        /// The first OVN that has the option.
        since: Option<&'static str>,
        /// The known names are those of the southbound database.
        of_southbound: bool,
    },
    /// The option has a type that came with a newer OVN.
    UnknownType(String),
    /// OVN sets the option itself.
    SetByOvn,
    /// The option is there twice.
    Twice,
    /// The option has no value.
    Empty,
    /// Something has no `=`.
    NoEquals,
    /// Several values without braces around them: this is the second.
    NoBraces(String),
    /// A quotation mark or a brace is opened and not closed.
    Unclosed(char),
    /// This follows a closing quotation mark or brace.
    Trailing(String),
    /// Braces where one value has to be.
    Braces(String),
    /// A string without quotation marks.
    NotQuoted(String),
    /// Quotation marks around a number or an address.
    Quoted(String),
    /// Not `0` or `1`.
    Bool(String),
    /// Not `true` or `false`.
    Switch(String),
    /// Not a number that OVN reads.
    Number {
        /// The value.
        value: String,
        /// The fault.
        fault: NumberFault,
        /// The least number.
        least: u32,
        /// The greatest.
        most: u32,
    },
    /// Not an address.
    Address(String),
    /// An address with leading zeros: it is read as this one, if at all.
    AddressZeros {
        /// The value.
        value: String,
        /// Without the zeros.
        plain: Ipv4Addr,
    },
    /// An address that no host has.
    NotUnicast(IpAddr),
    /// More addresses than one.
    OneAddress(usize),
    /// Addresses that go in pairs, and one is left over.
    Pairs(usize),
    /// Not a network in a route.
    Network(String),
    /// A network in a route with bits set after its prefix.
    HostBits {
        /// The value.
        value: String,
        /// The network.
        network: Ipv4Net,
    },
    /// Not a unicast MAC.
    Mac(String),
    /// A character that OVN reads otherwise, or cannot send.
    Character {
        /// The value.
        value: String,
        /// The character.
        character: char,
    },
    /// Not a domain name.
    Domain(String),
    /// A domain name of several labels, where OVN sends one label.
    OneLabel(String),
    /// Domain names that differ in their last character only, of which OVN sends the first twice.
    SameButLast {
        /// A name.
        first: String,
        /// The name that would be sent with the end of the first.
        second: String,
    },
    /// More bytes than the option can have.
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// More bytes with this option than an answer may have.
    AnswerTooLong {
        /// The bytes of all options.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Not less than the value of another option.
    NotLess {
        /// The value.
        value: u32,
        /// The other option.
        than: &'static str,
        /// Its value.
        limit: u32,
    },
}

/// The fault of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFault {
    /// It begins with a zero.
    LeadingZero,
    /// It is negative.
    Negative,
    /// It has a decimal point.
    Fraction,
    /// It has a unit. In seconds it is this number, where it is a time.
    Unit(Option<u32>),
    /// It is something else.
    NotANumber,
    /// It is out of range.
    OutOfRange,
}

/// What is wrong, as the middle of a sentence.
#[derive(Debug, Clone, Copy)]
pub struct OptionProblem<'a>(&'a OptionError);

/// What to do, as a sentence without its full stop.
#[derive(Debug, Clone, Copy)]
pub struct OptionRemedy<'a>(&'a OptionError);

impl OptionError {
    pub(super) fn new(family: Family, option: &str, fault: OptionFault) -> Self {
        Self { family, option: option.to_owned(), fault }
    }

    /// What is wrong, as in `the DHCPv4 option mtu is "70000", ...`: for a sentence that names the annotation before.
    pub fn problem(&self) -> OptionProblem<'_> {
        OptionProblem(self)
    }

    /// What to do, as in `Write a number from 68 to 65535`: for the second sentence.
    pub fn remedy(&self) -> OptionRemedy<'_> {
        OptionRemedy(self)
    }
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("The ")?;
        about(self, formatter)?;
        write!(formatter, ". {}.", self.remedy())
    }
}

impl fmt::Display for OptionProblem<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the ")?;
        about(self.0, formatter)
    }
}

/// `DHCPv4 option mtu is ...`
fn about(error: &OptionError, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let OptionError { family, option, fault } = error;
    write!(formatter, "{family} option {} ", Escaped(option))?;
    match fault {
        OptionFault::Unknown { since: Some(version), of_southbound: true, nearest: _ } => {
            write!(formatter, "came with OVN {version}, and this OVN does not have it")
        }
        OptionFault::Unknown { since: Some(version), of_southbound: false, nearest: _ } => {
            write!(
                formatter,
                "came with OVN {version}, and without --sb this service knows the options of OVN 23.03 alone"
            )
        }
        OptionFault::Unknown { since: None, .. } => formatter.write_str("is unknown to OVN"),
        OptionFault::UnknownType(kind) => {
            write!(formatter, "has the type {} of a newer OVN, which this service cannot check", Escaped(kind))
        }
        OptionFault::SetByOvn => formatter.write_str("is sent by OVN itself, and a guest would get it twice"),
        OptionFault::Twice => formatter.write_str("is there twice"),
        OptionFault::Empty => formatter.write_str("has no value, which takes DHCP from the port"),
        OptionFault::NoEquals => formatter.write_str("has no = after its name"),
        OptionFault::NoBraces(second) => {
            write!(formatter, "is followed by \"{}\", which has no = in it", Escaped(second))
        }
        OptionFault::Unclosed(mark) => {
            write!(formatter, "has a value that begins with {mark} and does not end with {}", closing(*mark))
        }
        OptionFault::Trailing(text) => write!(formatter, "has \"{}\" after the end of its value", Escaped(text)),
        OptionFault::Braces(value) => {
            write!(formatter, "is \"{}\", and OVN reads one value here, without braces", Escaped(value))
        }
        OptionFault::NotQuoted(value) => write!(formatter, "is {}, a string without quotation marks", Escaped(value)),
        OptionFault::Quoted(value) => {
            write!(
                formatter,
                "is \"{}\" in quotation marks, and OVN reads a number or an address without them",
                Escaped(value)
            )
        }
        OptionFault::Bool(value) => write!(formatter, "is \"{}\", and OVN reads 0 or 1", Escaped(value)),
        OptionFault::Switch(value) => write!(formatter, "is \"{}\", and OVN reads true or false", Escaped(value)),
        OptionFault::Number { value, fault, least: _, most: _ } => {
            write!(formatter, "is \"{}\", {}", Escaped(value), number_problem(*fault))
        }
        OptionFault::Address(value) => {
            write!(formatter, "is \"{}\", which is not an {} address", Escaped(value), ip(*family))
        }
        OptionFault::AddressZeros { value, plain: _ } => {
            write!(formatter, "is \"{}\", an address with leading zeros, which OVN refuses", Escaped(value))
        }
        OptionFault::NotUnicast(address) => write!(formatter, "is {address}, which is not the address of a host"),
        OptionFault::OneAddress(count) => write!(formatter, "has {count} addresses, and a guest takes one"),
        OptionFault::Pairs(count) => {
            write!(formatter, "has {count} elements, and OVN leaves out the last of an odd number")
        }
        OptionFault::Network(value) => {
            write!(formatter, "has the destination \"{}\", which is not an IPv4 network", Escaped(value))
        }
        OptionFault::HostBits { value, network } => {
            write!(formatter, "has the destination \"{}\", which OVN would send as {network}", Escaped(value))
        }
        OptionFault::Mac(value) => write!(formatter, "is \"{}\", which is not a unicast MAC", Escaped(value)),
        OptionFault::Character { value, character } => write!(
            formatter,
            "is \"{}\", in which OVN cannot send the character {}",
            Escaped(value),
            character.escape_debug()
        ),
        OptionFault::Domain(value) => write!(formatter, "has \"{}\", which is not a domain name", Escaped(value)),
        OptionFault::OneLabel(value) => {
            write!(
                formatter,
                "is \"{}\", which OVN sends as one label with dots in it: a guest cannot use it",
                Escaped(value)
            )
        }
        OptionFault::SameButLast { first, second } => write!(
            formatter,
            "has {} after {}: OVN does not compare the last character, and sends the end of the first name for both",
            Escaped(second),
            Escaped(first)
        ),
        OptionFault::TooLong { bytes, most } => {
            write!(formatter, "takes {bytes} bytes in an answer, and more than {most} are cut off")
        }
        OptionFault::AnswerTooLong { bytes, most } => {
            write!(
                formatter,
                "is the longest of options that take {bytes} bytes together, and an answer has room for {most}"
            )
        }
        OptionFault::NotLess { value, than, limit } => {
            write!(formatter, "is {value}, and has to be less than {than} ({limit})")
        }
    }
}

fn closing(mark: char) -> char {
    if mark == '{' { '}' } else { mark }
}

fn ip(family: Family) -> &'static str {
    if family == Family::V4 { "IPv4" } else { "IPv6" }
}

fn number_problem(fault: NumberFault) -> &'static str {
    match fault {
        NumberFault::LeadingZero => "a number with a leading zero, which takes DHCP from the port",
        NumberFault::Negative => "a negative number, which takes DHCP from the port",
        NumberFault::Fraction => "a fraction, which takes DHCP from the port",
        NumberFault::Unit(_) => "a number with a unit, which takes DHCP from the port",
        NumberFault::NotANumber => "which is not a decimal number",
        NumberFault::OutOfRange => "which is out of range",
    }
}

impl fmt::Display for OptionRemedy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OptionError { family, option, fault } = self.0;
        let name = Escaped(option);
        match fault {
            OptionFault::Unknown { nearest: Some(nearest), since: None, .. } => {
                write!(formatter, "Write {}, if that is meant, or remove it", Escaped(nearest))
            }
            OptionFault::Unknown { since: Some(_), of_southbound: true, .. } => {
                formatter.write_str("Remove it, or have the operator upgrade OVN")
            }
            OptionFault::Unknown { since: Some(_), of_southbound: false, .. } => formatter.write_str(
                "Remove it, or have the operator set --sb, so that the options of the OVN that runs are known",
            ),
            OptionFault::Unknown { nearest: None, since: None, .. } => {
                let known = if *family == Family::V4 { "router, dns_server or mtu" } else { "dns_server or server_id" };
                write!(formatter, "Remove it, or choose an option of ovn-nb(5), such as {known}")
            }
            OptionFault::UnknownType(_) => formatter.write_str("Remove it, or have the operator upgrade ovn-kubevirt"),
            OptionFault::SetByOvn => formatter.write_str("Remove it: OVN takes it from the port and its subnet"),
            OptionFault::Twice => formatter.write_str("Remove one of the two"),
            OptionFault::Empty => write!(formatter, "Write a value after {name}=, or remove the option"),
            OptionFault::NoEquals => formatter.write_str("Write options as in mtu=1400;dns_server={1.1.1.1,8.8.8.8}"),
            OptionFault::NoBraces(_) => write!(formatter, "Write several values in braces, as in {name}={{a,b}}"),
            OptionFault::Unclosed(mark) => write!(formatter, "Add the {} at the end of the value", closing(*mark)),
            OptionFault::Trailing(_) => formatter.write_str("Write a semicolon after each value"),
            OptionFault::Braces(_) => braces_remedy(option, formatter),
            OptionFault::NotQuoted(value) => {
                write!(formatter, "Write {name}=\"{}\", with the quotation marks", Escaped(value))
            }
            OptionFault::Quoted(value) => write!(formatter, "Write {name}={}, without quotation marks", Escaped(value)),
            OptionFault::Bool(_) => write!(formatter, "Write {name}=1 for yes, or {name}=0 for no"),
            OptionFault::Switch(_) => write!(formatter, "Write {name}=true or {name}=false"),
            OptionFault::Number { value, fault, least, most } => {
                number_remedy(option, value, *fault, (*least, *most), formatter)
            }
            OptionFault::Address(_) if *family == Family::V4 => {
                write!(formatter, "Write addresses and no names, as in {name}=10.0.0.1")
            }
            OptionFault::Address(_) => write!(formatter, "Write addresses and no names, as in {name}=fd00::1"),
            OptionFault::AddressZeros { value: _, plain } => write!(formatter, "Write {plain}, if that is meant"),
            OptionFault::NotUnicast(_) => formatter.write_str("Write the address of one host"),
            OptionFault::OneAddress(_) => write!(formatter, "Write one address, as in {name}=10.0.0.1"),
            OptionFault::Pairs(_) => pairs_remedy(option, formatter),
            OptionFault::Network(_) => {
                write!(formatter, "Write pairs of a network and a router, as in {name}={{10.1.0.0/16,10.0.0.1}}")
            }
            OptionFault::HostBits { value: _, network } => write!(formatter, "Write {network}, if that is meant"),
            OptionFault::Mac(_) => formatter.write_str("Write six bytes of two digits, as in 02:00:00:00:00:01"),
            OptionFault::Character { .. } => formatter.write_str(
                "Write visible ASCII characters and blanks, without quotation marks, backslashes and circumflexes",
            ),
            OptionFault::Domain(_) => {
                formatter.write_str("Write labels of at most 63 letters, digits and hyphens, with dots between")
            }
            OptionFault::OneLabel(_) => {
                formatter.write_str("Remove it, and have guests get the search list from DHCPv4's domain_search_list")
            }
            OptionFault::SameButLast { second, .. } => write!(formatter, "Remove {} from the list", Escaped(second)),
            OptionFault::TooLong { .. } => formatter.write_str("Shorten its value"),
            OptionFault::AnswerTooLong { .. } => formatter.write_str("Shorten its value, or remove options"),
            OptionFault::NotLess { than, .. } => write!(formatter, "Write a smaller {name}, or a larger {than}"),
        }
    }
}

fn braces_remedy(option: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match option {
        "domain_search_list" => {
            write!(formatter, "Write all names in one string, as in {option}=\"a.example,b.example\"")
        }
        _ => write!(formatter, "Write one value without braces after {}=", Escaped(option)),
    }
}

fn pairs_remedy(option: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match option {
        "policy_filter" => {
            write!(formatter, "Write pairs of an address and a mask, as in {option}={{10.1.0.0,255.255.0.0}}")
        }
        _ => write!(
            formatter,
            "Write pairs of a network and a router, as in {}={{10.1.0.0/16,10.0.0.1}}",
            Escaped(option)
        ),
    }
}

fn number_remedy(
    option: &str,
    value: &str,
    fault: NumberFault,
    (least, most): (u32, u32),
    formatter: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let name = Escaped(option);
    let plain = value.trim_start_matches('0').parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    match (fault, plain) {
        (NumberFault::LeadingZero, Some(plain)) => write!(formatter, "Write {name}={plain}"),
        (NumberFault::Unit(Some(seconds)), _) => write!(formatter, "Write {name}={seconds}, in seconds"),
        _ => write!(formatter, "Write a whole number from {least} to {most}"),
    }
}
