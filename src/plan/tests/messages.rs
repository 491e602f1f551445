//! All messages to owners and operators, read for the habits that make a message hard to use.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::contract::keys::{ALLOW, NAMESPACES};
use crate::contract::{NadKey, VmKey};
use crate::intent::{Binding, InvalidRequest, IpFamily, MacField, Misplaced, Permission, Retention};
use crate::ipam::{AddressPool, BadPool, SubnetError, Unread};
use crate::kubevirt::{InvalidChassis, Kind, Notice, Place};
use crate::ovn::dhcp::{DhcpOptions, Family, OptionError, OptionTable};
use crate::plan::{AllowRule, Fault, Holder, Problem, Requested};

/// More words than this make a sentence that has to be read twice.
const LONGEST_SENTENCE: usize = 35;
/// Pronouns that stand for an object without naming it, and words that the glossary replaces.
const FORBIDDEN: [&str; 8] = ["whom", "whose", "nobody", "somebody", "none of", "wish", "befall", "befell"];
/// The first words of the sentence with the instruction.
const IMPERATIVES: [&str; 22] = [
    "Add",
    "Begin",
    "Change",
    "Check",
    "Choose",
    "Correct",
    "Create",
    "Delete",
    "Label",
    "Let",
    "Remove",
    "Rename",
    "Request",
    "Restart",
    "Run",
    "Set",
    "Shorten",
    "Start",
    "Stop",
    "Use",
    "Write",
    "No action is needed",
];

/// A value, with the objects and values that its message names.
type Example<T> = (T, Vec<String>);

/// Examples of every variant of an enum. A variant without a row does not compile; a row whose examples are of another
/// variant fails.
macro_rules! examples {
    ($type:ty { $($variant:pat => $examples:expr,)+ }) => {{
        let _every_variant_has_a_row = |value: &$type| match value { $($variant => (),)+ };
        let mut all: Vec<Example<$type>> = Vec::new();
        $(
            let examples: Vec<Example<$type>> = $examples;
            assert!(!examples.is_empty(), "{} has no example", stringify!($variant));
            for (example, _) in &examples {
                assert!(matches!(example, $variant), "{example:?} is no {}", stringify!($variant));
            }
            all.extend(examples);
        )+
        all
    }};
}

mod dhcp;

/// One example.
fn one<T, const N: usize>(value: T, names: [&str; N]) -> Vec<Example<T>> {
    vec![(value, names.map(ToOwned::to_owned).into())]
}

fn map<T, U>(examples: Vec<Example<T>>, wrap: impl Fn(T) -> U) -> Vec<Example<U>> {
    examples.into_iter().map(|(value, names)| (wrap(value), names)).collect()
}

/// The error of a text.
fn option_error(text: &str) -> Box<OptionError> {
    Box::new(DhcpOptions::parse(text, Family::V4, &OptionTable::built_in()).expect_err(text))
}

/// Makes examples. Foreign text ends with the `mark`.
struct Examples {
    mark: &'static str,
}

impl Examples {
    fn text(&self, text: &str) -> String {
        format!("{text}{}", self.mark)
    }

    fn texts<const N: usize>(&self, texts: [&str; N]) -> Vec<String> {
        texts.map(|text| self.text(text)).into()
    }

    fn invalid(&self) -> Vec<Example<InvalidRequest>> {
        let text = |text| self.text(text);
        let key = || text("net1.n.ovn.kubernetes.io/x");
        let mac = |at| InvalidRequest::MacAddress { at, value: text("0a:58") };
        let reason = BadPool(text("10.16.0.9..10.16.0.2"));
        examples!(InvalidRequest {
            InvalidRequest::NetworkName(_) => one(InvalidRequest::NetworkName(text("a b")), ["a b", "63"]),
            InvalidRequest::NadName(_) => one(InvalidRequest::NadName(text("a/b/c")), ["a/b/c"]),
            InvalidRequest::TooLong(_) => one(InvalidRequest::TooLong(key()), ["net1.n.ovn.kubernetes.io/x", "4096"]),
            InvalidRequest::IpAddress { .. } => one(
                InvalidRequest::IpAddress { key: key(), value: text("10.16.0") },
                ["net1.n.ovn.kubernetes.io/x", "\"10.16.0\""],
            ),
            InvalidRequest::MacAddress { .. } => [
                one(mac(MacField::Interface(text("data"))), ["macAddress", "data", "0a:58"]),
                one(mac(MacField::Annotation(key())), ["annotation net1.n.ovn.kubernetes.io/x", "0a:58"]),
            ]
            .concat(),
            InvalidRequest::MacMismatch { .. } => one(
                InvalidRequest::MacMismatch {
                    network: text("data"),
                    field: text("02:00:00:00:00:01"),
                    key: key(),
                    annotation: text("02:00:00:00:00:02"),
                },
                ["network data", "02:00:00:00:00:01", "net1.n.ovn.kubernetes.io/x", "02:00:00:00:00:02"],
            ),
            InvalidRequest::IpPool { .. } => one(
                InvalidRequest::IpPool { key: key(), value: text("10.16.0.9..10.16.0.2,x"), reason },
                ["net1.n.ovn.kubernetes.io/x", "\"10.16.0.9..10.16.0.2,x\"", "\"10.16.0.9..10.16.0.2\""],
            ),
            InvalidRequest::IpFamily { .. } => one(
                InvalidRequest::IpFamily { key: key(), value: text("both") },
                ["net1.n.ovn.kubernetes.io/x", "\"both\"", "dual"],
            ),
            InvalidRequest::FamilyMismatch { .. } => one(
                InvalidRequest::FamilyMismatch {
                    key: key(),
                    family: IpFamily::Ipv4,
                    address: "fd00::9".parse().expect("an address"),
                },
                ["net1.n.ovn.kubernetes.io/x", "ipv4", "fd00::9"],
            ),
            InvalidRequest::PortSecurity { .. } => one(
                InvalidRequest::PortSecurity { key: key(), value: text("off") },
                ["net1.n.ovn.kubernetes.io/x", "\"off\"", "\"true\"", "\"false\""],
            ),
            InvalidRequest::PortVips { .. } => one(
                InvalidRequest::PortVips { key: key(), value: text("10.16.0") },
                ["net1.n.ovn.kubernetes.io/x", "\"10.16.0\"", "16"],
            ),
            InvalidRequest::Dhcp { .. } => one(
                InvalidRequest::Dhcp { key: key(), value: text("yes") },
                ["net1.n.ovn.kubernetes.io/x", "\"yes\"", "\"true\""],
            ),
            InvalidRequest::DhcpOptions { .. } => one(
                InvalidRequest::DhcpOptions { key: key(), error: option_error("mtu=70000") },
                ["net1.n.ovn.kubernetes.io/x", "mtu", "70000", "65535"],
            ),
            InvalidRequest::OneForSeveral { .. } => one(
                InvalidRequest::OneForSeveral {
                    key: key(),
                    networks: self.texts(["data", "backup"]),
                    network: text("data"),
                    what: "ip_address",
                },
                ["net1.n.ovn.kubernetes.io/x", "data and backup", "data.ovn.kubernetes.io/ip_address"],
            ),
            InvalidRequest::Retain(_) => one(
                InvalidRequest::Retain(text("3 days")),
                ["ovn-kubevirt.io/retain", "\"3 days\"", "72h", "forever"],
            ),
        })
    }

    fn misplaced(&self) -> Vec<Example<Misplaced>> {
        let at = |place| Misplaced::Elsewhere { place, keys: self.texts(["ovn.kubernetes.io/ip_address"]) };
        let several = Misplaced::Elsewhere { place: Place::Vm, keys: self.texts(["a.b/c", "d.e/f"]) };
        let nad = Place::Nad(NadKey::new("n", self.text("net1")));
        examples!(Misplaced {
            Misplaced::Elsewhere { .. } => [
                one(at(Place::Vm), [
                    "ovn.kubernetes.io/ip_address",
                    "in metadata.annotations of the VirtualMachine",
                    "spec.template.metadata.annotations",
                ]),
                one(several, ["annotations a.b/c, d.e/f"]),
                one(at(Place::Launcher(self.text("virt-launcher-web-x"))), [
                    "ovn.kubernetes.io/ip_address",
                    "virt-launcher-web-x",
                    "spec.template.metadata.annotations",
                ]),
                one(at(nad), [
                    "ovn.kubernetes.io/ip_address",
                    "NetworkAttachmentDefinition n/net1",
                    "spec.template.metadata.annotations",
                ]),
            ]
            .concat(),
            Misplaced::LacksOvn { .. } => one(
                Misplaced::LacksOvn {
                    key: self.text("default.kubernetes.io/ip_address"),
                    right: self.text("default.ovn.kubernetes.io/ip_address"),
                },
                ["default.kubernetes.io/ip_address", "default.ovn.kubernetes.io/ip_address"],
            ),
        })
    }

    fn subnet_errors(&self) -> Vec<Example<SubnetError>> {
        examples!(SubnetError {
            SubnetError::Missing => one(SubnetError::Missing, [
                "other_config:subnet", "ipv6_prefix", "router port", "ip_address \"none\"",
            ]),
            SubnetError::BadSubnet(_) => one(SubnetError::BadSubnet(self.text("10.16.0.0")), [
                "other_config:subnet", "\"10.16.0.0\"",
            ]),
            SubnetError::BadPrefix(_) => one(SubnetError::BadPrefix(self.text("fd00")), [
                "other_config:ipv6_prefix", "\"fd00\"",
            ]),
        })
    }

    fn holders(&self) -> Vec<Example<Holder>> {
        let (key, port) = (|| VmKey::new("n", self.text("db")), || self.text("db.n"));
        examples!(Holder {
            Holder::Vm { .. } => one(Holder::Vm { key: key(), port: port() }, ["VM n/db", "port db.n"]),
            Holder::RouterPort { .. } => one(Holder::RouterPort { port: port() }, ["router port db.n"]),
            Holder::OtherInstance { .. } => one(
                Holder::OtherInstance { port: port(), instance: self.text("other") },
                ["port db.n", "instance other"],
            ),
            Holder::ForeignPort { .. } => one(Holder::ForeignPort { port: port() }, ["port db.n", "ovn-kubevirt"]),
            Holder::Gone => one(Holder::Gone, ["deleted"]),
            Holder::Service(_) => one(
                Holder::Service("the load balancer shop".to_owned()),
                ["the load balancer shop"],
            ),
            Holder::LostBy(_) => one(Holder::LostBy(key()), ["guest of the VM n/db", "lost its port"]),
        })
    }

    /// A problem with each holder, which names these as well.
    fn held<const N: usize>(
        &self,
        names: [&str; N],
        problem: impl Fn(String, Box<Holder>) -> Problem,
    ) -> Vec<Example<Problem>> {
        let mut examples = map(self.holders(), |holder| problem(self.text("blue"), Box::new(holder)));
        let names = names.map(ToOwned::to_owned);
        examples.iter_mut().for_each(|(_, named)| named.extend(names.iter().cloned().chain(["blue".to_owned()])));
        examples
    }

    fn no_subnet(&self) -> Vec<Example<Problem>> {
        let on_blue = |reason| Problem::NoSubnet { switch: self.text("blue"), reason };
        let mut examples = map(self.subnet_errors(), on_blue);
        examples.iter_mut().for_each(|(_, named)| named.push("blue".to_owned()));
        examples
    }

    /// Problems of requests, and of switches.
    fn problems(&self) -> Vec<Example<Problem>> {
        let text = |text| self.text(text);
        let blue = || text("blue");
        let address: IpAddr = "10.16.0.9".parse().expect("an address");
        let mac = "02:00:00:00:00:0a".parse().expect("a MAC");
        let pool = || -> Box<AddressPool> { Box::new("10.16.0.2..10.16.0.4,10.16.0.9".parse().expect("a pool")) };
        let pool_text = "10.16.0.2..10.16.0.4, 10.16.0.9";
        let subnet =
            || -> Vec<IpNet> { ["10.17.0.0/16", "fd00::/64"].map(|net| net.parse().expect("a network")).into() };
        let subnet_text = "10.17.0.0/16, fd00::/64";
        let exhausted = |ipv4| Problem::SubnetExhausted { switch: blue(), subnet: subnet(), ipv4 };
        let not_excluded = |by_northd, rule| Problem::PoolNotExcluded {
            pool: pool(),
            switch: blue(),
            port: text("lease"),
            by_northd,
            rule,
        };
        let rule = |permission, on_switch| AllowRule { permission, on_switch };
        let not_allowed = |requested, permission, on_switch| Problem::NotAllowed {
            requested,
            switch: blue(),
            rule: rule(permission, on_switch),
        };
        let no_namespace = |on_switch| Problem::NamespaceNotAllowed {
            namespace: text("prod"),
            switch: blue(),
            on_switch,
            keeps: on_switch,
        };
        let unread_policy = |key| Problem::PolicyUnread { switch: blue(), key, word: text("a b") };
        let too_long = |keeps| Problem::RetainTooLong {
            requested: Retention::Forever,
            most: Retention::For(Duration::from_secs(720 * 3_600)),
            keeps,
        };
        let secured = |on_switch, keeps| Problem::PortSecurityKept {
            network: text("data"),
            switch: blue(),
            rule: rule(Permission::PortSecurityOff, on_switch),
            keeps,
        };
        let no_vips = |keeps| Problem::VipsNotAllowed {
            network: text("data"),
            switch: blue(),
            rule: rule(Permission::Vips, keeps),
            keeps,
        };
        let unread = |key, value| Unread { key, text: text(value) };
        let ambiguous = |kept: Option<&str>| Problem::ChassisAmbiguous {
            node: text("node-1"),
            rows: self.texts(["id-1", "id-2"]),
            kept: kept.map(|kept| self.text(kept)),
        };
        let guest = "0a:58:0a:10:00:02 10.16.0.2".parse().expect("addresses");
        let invalid_chassis = InvalidChassis { value: text("n1,n2") };
        examples!(Problem {
            Problem::Unreadable(_) => one(Problem::Unreadable(text("missing field `x`")), ["missing field `x`"]),
            Problem::Invalid(_) => map(self.invalid(), Problem::Invalid),
            Problem::Misplaced(_) => map(self.misplaced(), Problem::Misplaced),
            Problem::Unserved(_) => [
                one(Problem::Unserved(self.texts(["a.b/c"])), ["annotation a.b/c", "ip_pool", "/retain"]),
                one(Problem::Unserved(self.texts(["a.b/c", "d.e/f"])), ["annotations a.b/c, d.e/f"]),
            ]
            .concat(),
            Problem::Unmatched(_) => [
                one(Problem::Unmatched(self.texts(["a.b/c"])), ["annotation a.b/c", "<network>.ovn.kubernetes.io/"]),
                one(Problem::Unmatched(self.texts(["a.b/c", "d.e/f"])), ["annotations a.b/c, d.e/f"]),
            ]
            .concat(),
            Problem::PortSecurityKept { .. } => [
                one(secured(false, false), ["network data", "port_security", "--allow of", "\"port-security-off\""]),
                one(secured(true, true), ["network data", "external_ids:ovn-kubevirt.io/allow", "switch blue"]),
            ]
            .concat(),
            Problem::VipsNotAllowed { .. } => [
                one(no_vips(false), ["network data", "port_vips", "--allow of", "\"vips\""]),
                one(no_vips(true), ["network data", "external_ids:ovn-kubevirt.io/allow", "switch blue"]),
            ]
            .concat(),
            Problem::NotAllowed { .. } => [
                one(
                    not_allowed(Requested::Address(address), Permission::Explicit, false),
                    ["10.16.0.9", "switch blue", "--allow of ovn-kubevirt does not have \"explicit\""],
                ),
                one(
                    not_allowed(Requested::Address(address), Permission::Excluded, true),
                    ["10.16.0.9", "external_ids:ovn-kubevirt.io/allow of the logical switch blue", "\"excluded\""],
                ),
                one(
                    not_allowed(Requested::Address(address), Permission::First, true),
                    ["10.16.0.9", "external_ids:ovn-kubevirt.io/allow of the logical switch blue", "\"first\""],
                ),
                one(
                    not_allowed(Requested::Pool(pool()), Permission::Excluded, false),
                    [pool_text, "switch blue", "--allow of ovn-kubevirt does not have \"excluded\""],
                ),
                one(
                    not_allowed(Requested::Pool(pool()), Permission::First, true),
                    [pool_text, "external_ids:ovn-kubevirt.io/allow of the logical switch blue", "\"first\""],
                ),
                one(
                    not_allowed(Requested::Pool(pool()), Permission::Explicit, true),
                    [pool_text, "external_ids:ovn-kubevirt.io/allow of the logical switch blue", "\"explicit\""],
                ),
            ]
            .concat(),
            Problem::NamespaceNotAllowed { .. } => [
                one(no_namespace(true), ["namespace prod", "switch blue", "external_ids:ovn-kubevirt.io/namespaces"]),
                one(no_namespace(false), ["namespace prod", "switch blue", "--switch-namespaces of ovn-kubevirt"]),
            ]
            .concat(),
            Problem::PolicyUnread { .. } => [
                one(unread_policy(NAMESPACES), ["external_ids:ovn-kubevirt.io/namespaces", "switch blue", "\"a b"]),
                one(unread_policy(ALLOW), ["external_ids:ovn-kubevirt.io/allow", "switch blue", "\"a b", "explicit"]),
            ]
            .concat(),
            Problem::TooManyNics { .. } => one(
                Problem::TooManyNics { namespace: text("prod"), limit: 20 },
                ["namespace prod", "--max-nics of ovn-kubevirt allows (20)"],
            ),
            Problem::RetainTooLong { .. } => [
                one(too_long(false), ["ovn-kubevirt.io/retain", "\"forever\"", "--max-retain of ovn-kubevirt", "720h"]),
                one(too_long(true), ["ovn-kubevirt.io/retain", "\"forever\"", "--max-retain of ovn-kubevirt", "720h"]),
            ]
            .concat(),
            Problem::NadNotFound { .. } => one(
                Problem::NadNotFound { network: text("data"), nad: NadKey::new("prod", text("net1")) },
                ["network data", "NetworkAttachmentDefinition prod/net1"],
            ),
            Problem::SwitchNotFound(_) => one(Problem::SwitchNotFound(blue()), ["switch named blue"]),
            Problem::SwitchAmbiguous { .. } => one(
                Problem::SwitchAmbiguous { name: blue(), count: 3 },
                ["3 logical switches named blue"],
            ),
            Problem::NoSubnet { .. } => self.no_subnet(),
            Problem::SubnetExhausted { .. } => [
                one(exhausted(true), ["blue", subnet_text, "IPv4", "exclude_ips"]),
                one(exhausted(false), ["blue", subnet_text, "IPv6", "exclude_ips"]),
            ]
            .concat(),
            Problem::NotAdvertised { .. } => [
                one(
                    Problem::NotAdvertised { switch: blue(), router_port: text("lrp0"), mode: None },
                    ["router port lrp0", "switch blue", "ipv6_ra_configs:address_mode", "--manage-ra"],
                ),
                one(
                    Problem::NotAdvertised { switch: blue(), router_port: text("lrp0"), mode: Some(text("slaac")) },
                    ["router port lrp0", "switch blue", "address_mode=slaac", "dhcpv6_stateful"],
                ),
            ]
            .concat(),
            Problem::FamilyMissing { .. } => one(
                Problem::FamilyMissing { ipv4: false, switch: blue(), subnet: subnet() },
                ["ip_family", "IPv6", "switch blue", subnet_text],
            ),
            Problem::OutOfSubnet { .. } => one(
                Problem::OutOfSubnet { address, switch: blue(), subnet: subnet() },
                ["10.16.0.9", "switch blue", subnet_text],
            ),
            Problem::AddressHeld { .. } => self.held(["10.16.0.9", "granted"], |switch, holder| {
                Problem::AddressHeld { address, switch, holder }
            }),
            Problem::MacHeld { .. } => self.held(["MAC 02:00:00:00:00:0a", "granted"], |switch, holder| {
                Problem::MacHeld { mac, switch, holder }
            }),
            Problem::PoolOutOfSubnet { .. } => one(
                Problem::PoolOutOfSubnet { pool: pool(), switch: blue(), subnet: subnet() },
                ["ip_pool", pool_text, "switch blue", subnet_text],
            ),
            Problem::PoolExhausted { .. } => one(
                Problem::PoolExhausted { pool: pool(), switch: blue() },
                ["ip_pool", pool_text, "switch blue"],
            ),
            Problem::PoolRequired { .. } => one(
                Problem::PoolRequired { switch: blue(), port: text("lease"), rule: None },
                ["switch blue", "lease", "exclude_ips", "ip_pool", "ip_address"],
            )
            .into_iter()
            .chain(one(
                Problem::PoolRequired {
                    switch: blue(),
                    port: text("lease"),
                    rule: Some(rule(Permission::Excluded, true)),
                },
                ["switch blue", "ip_pool", "\"excluded\" to external_ids:ovn-kubevirt.io/allow of the switch"],
            ))
            .collect(),
            Problem::PoolNotExcluded { .. } => [
                one(
                    not_excluded(false, Some(rule(Permission::Excluded, false))),
                    ["switch blue", "lease", "exclude_ips", "ip_pool", pool_text, "\"excluded\" to --allow"],
                ),
                one(
                    not_excluded(true, Some(rule(Permission::Explicit, true))),
                    ["switch blue", "northd", "comma", "\"explicit\" to external_ids:ovn-kubevirt.io/allow"],
                ),
                one(not_excluded(false, None), ["switch blue", "lease", "exclude_ips", "ip_pool", pool_text]),
                one(not_excluded(true, None), ["switch blue", "lease", "exclude_ips", pool_text, "northd", "comma"]),
            ]
            .concat(),
            Problem::SettingUnread { .. } => one(
                Problem::SettingUnread {
                    switch: blue(),
                    unread: vec![unread("exclude_ips", "x"), unread("subnet", "10.16.0.0/16 ")],
                },
                ["switch blue", "\"x\" in other_config:exclude_ips", "\"10.16.0.0/16 \" in other_config:subnet"],
            ),
            Problem::AddressDoubled { .. } => self.held(
                ["10.16.0.9", "keeps", "both lose traffic", "the annotation ip_address"],
                |switch, holder| Problem::AddressDoubled { address, switch, holder },
            ),
            Problem::MacDoubled { .. } => self.held(
                ["MAC 02:00:00:00:00:0a", "keeps", "both lose traffic", "macAddress"],
                |switch, holder| Problem::MacDoubled { mac, switch, holder },
            ),
            Problem::LeaseOutside { .. } => one(
                Problem::LeaseOutside { address, switch: blue(), subnet: subnet() },
                ["keeps 10.16.0.9", "switch blue", subnet_text, "ip_address"],
            ),
            Problem::LeaseOutsidePool { .. } => one(
                Problem::LeaseOutsidePool { address, pool: pool() },
                ["keeps 10.16.0.9", "ip_pool", pool_text, "next start"],
            ),
            Problem::LeaseExcluded { .. } => one(
                Problem::LeaseExcluded { address, switch: blue() },
                ["keeps 10.16.0.9", "exclude_ips", "switch blue", "ip_address"],
            ),
            Problem::NameTaken(_) => [
                one(Problem::NameTaken(self.texts(["web.n"])), ["port name web.n"]),
                one(Problem::NameTaken(self.texts(["web.n", "web.n.data"])), ["port names web.n and web.n.data"]),
            ]
            .concat(),
            Problem::SwitchDeferred { .. } => one(
                Problem::SwitchDeferred { present: blue(), requested: text("red") },
                ["switch blue", "switch red", "next start"],
            ),
            Problem::ChassisNotFound(_) => one(
                Problem::ChassisNotFound(text("node-1")),
                ["node node-1", "southbound", "ovn-controller", "ovn-kubevirt.io/chassis"],
            ),
            Problem::NamespaceNotSelected(_) => one(
                Problem::NamespaceNotSelected(text("prod")),
                ["namespace prod", "--namespace-selector"],
            ),
            Problem::ServedByAnotherInstance { .. } => one(
                Problem::ServedByAnotherInstance { instance: text("other") },
                ["instance other", "--namespace-selector", "ovn-kubevirt.io/ports"],
            ),
            Problem::TypeTaken { .. } => one(
                Problem::TypeTaken { port: text("web.n"), kind: text("router") },
                ["port web.n", "type router", "ovn-nbctl lsp-set-type web.n ''"],
            ),
            Problem::GuestHasAnother { .. } => one(
                Problem::GuestHasAnother { guest },
                ["0a:58:0a:10:00:02 10.16.0.2", "Restart the VM"],
            ),
            Problem::ChassisGone { .. } => one(
                Problem::ChassisGone { node: text("node-1"), chassis: text("id-1") },
                ["node node-1", "chassis id-1", "requested-chassis id-1", "ovn-controller"],
            ),
            Problem::ChassisAmbiguous { .. } => [
                one(ambiguous(Some("id-1")), ["node node-1", "2 chassis", "id-1, id-2", "on id-1", "chassis-del"]),
                one(ambiguous(None), ["node node-1", "2 chassis", "id-1, id-2", "claims it", "ovn-sbctl chassis-del"]),
            ]
            .concat(),
            Problem::ChassisNotReady { .. } => one(
                Problem::ChassisNotReady { node: text("node-1"), chassis: text("id-1"), port: text("web.n") },
                ["node node-1", "chassis id-1", "port web.n", "ovn-controller", "external_ids:iface-id=web.n"],
            ),
            Problem::DhcpByLauncher { .. } => [
                one(
                    Problem::DhcpByLauncher { network: text("data"), binding: Binding::Bridge },
                    ["network data", "bridge", "virt-launcher", "managedTap"],
                ),
                one(
                    Problem::DhcpByLauncher { network: text("data"), binding: Binding::Default },
                    ["network data", "KubeVirt's default, bridge or masquerade"],
                ),
                one(
                    Problem::DhcpByLauncher { network: text("data"), binding: Binding::Plugin(text("own")) },
                    ["network data", "the plugin own"],
                ),
            ]
            .concat(),
            Problem::DhcpOff { .. } => one(
                Problem::DhcpOff { network: text("data") },
                ["network data", "--dhcp=never", "change --dhcp"],
            ),
            Problem::DhcpWithoutAddress { .. } => one(
                Problem::DhcpWithoutAddress { network: text("data") },
                ["network data", "no address", "request an address"],
            ),
            Problem::DhcpOptions { .. } => [true, false]
                .map(|by_owner| Problem::DhcpOptions {
                    network: text("data"),
                    by_owner,
                    error: option_error("mtu=70000"),
                })
                .into_iter()
                .flat_map(|problem| one(problem, ["network data", "mtu", "70000", "65535"]))
                .collect(),
            Problem::Rejected(_) => one(Problem::Rejected(text("constraint violation")), ["constraint violation"]),
            Problem::InvalidChassis(..) => one(
                Problem::InvalidChassis(text("node-1"), invalid_chassis),
                ["ovn-kubevirt.io/chassis", "node node-1", "\"n1,n2\""],
            ),
        })
    }

    fn notices(&self) -> Vec<Example<Notice>> {
        examples!(Notice {
            Notice::Unreadable { .. } => one(
                Notice::Unreadable {
                    kind: Kind::Migration,
                    namespace: "n".to_owned(),
                    name: "m".to_owned(),
                    error: self.text("missing field `x`"),
                },
                ["VirtualMachineInstanceMigration n/m", "missing field `x`"],
            ),
            Notice::InvalidChassis { .. } => one(
                Notice::InvalidChassis { node: "node-1".to_owned(), value: self.text("n1,n2") },
                ["ovn-kubevirt.io/chassis", "node node-1", "\"n1,n2\""],
            ),
        })
    }

    /// Every message, with the names in it.
    fn messages(&self) -> Vec<Example<String>> {
        fn text<T: Display>(value: T) -> String {
            value.to_string()
        }
        [map(self.problems(), text), map(self.notices(), text), map(self.option_errors(), text)].concat()
    }
}

/// The faults of a message.
fn habits(message: &str, names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let sentences: Vec<&str> = message.strip_suffix('.').unwrap_or_default().split(". ").collect();
    if sentences.len() != 2 {
        found.push(format!("{} sentences", sentences.len()));
    }
    let too_long = sentences.iter().filter(|sentence| sentence.split_whitespace().count() > LONGEST_SENTENCE);
    found.extend(too_long.map(|sentence| format!("more than {LONGEST_SENTENCE} words: {sentence}")));
    found.extend(names.iter().filter(|name| !message.contains(*name)).map(|name| format!("does not name {name}")));
    let begins = |sentence: &str, word: &str| {
        sentence.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    let way_out = |sentence: &&str| IMPERATIVES.iter().any(|word| begins(sentence, word));
    if !sentences.iter().skip(1).any(way_out) {
        found.push("no way out".to_owned());
    }
    let lower = message.to_lowercase();
    found.extend(FORBIDDEN.iter().filter(|word| lower.contains(**word)).map(|word| format!("says \"{word}\"")));
    found
}

#[test]
fn every_message_is_two_sentences_that_name_the_object_and_say_what_to_do() {
    let messages = Examples { mark: "" }.messages();
    let bad = messages.iter().map(|(message, names)| (message, habits(message, names)));
    let bad: Vec<String> = bad.filter(|(_, found)| !found.is_empty()).map(|(m, f)| format!("{m}\n    {f:?}")).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn the_check_finds_bad_messages() {
    let names = ["blue".to_owned()];
    let long = format!("The logical switch blue has {}no subnet. Set one.", "really ".repeat(35));
    for (message, habit) in [
        ("The logical switch blue has no subnet", "sentences"),
        ("The logical switch blue has no subnet. Set one. Or not.", "3 sentences"),
        (long.as_str(), "more than 35 words"),
        ("The logical switch has no subnet. Set one.", "does not name blue"),
        ("The logical switch blue has no subnet. It is sad.", "no way out"),
        ("The logical switch blue has no subnet. Settings are needed.", "no way out"),
        ("The logical switch blue, whose subnet is missing, is of no use. Set one.", "says \"whose\""),
    ] {
        let found = habits(message, &names);
        assert!(found.iter().any(|found| found.contains(habit)), "{message}: {found:?}");
    }
    assert_eq!(habits("The logical switch blue has no subnet. Set one.", &names), [""; 0]);
}

#[test]
fn a_tenants_value_cannot_forge_a_line_or_lengthen_a_message_at_will() {
    let mark = "\n2026 INFO \u{202e}\u{1b}[2K";
    for (message, _) in (Examples { mark }).messages() {
        assert!(!message.contains(|character: char| character.is_control() || character == '\u{202e}'), "{message:?}");
        assert!(!message.contains("blue") || message.contains("blue\\n2026"), "{message:?}");
    }
    let mark: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    for (message, _) in (Examples { mark }).messages() {
        assert!(message.chars().count() < 1_200, "{message}");
    }
}

/// `Problem::fault` as lists, for a reader: an admission webhook refuses the first.
#[test]
fn the_fault_of_every_problem() {
    let mut of = [(Fault::Owner, Vec::new()), (Fault::Operator, Vec::new()), (Fault::Passing, Vec::new())];
    for (problem, _) in (Examples { mark: "" }).problems() {
        let debug = format!("{problem:?}");
        let name = debug.split([' ', '(']).next().unwrap_or_default().to_owned();
        let (_, names) = of.iter_mut().find(|(fault, _)| *fault == problem.fault()).expect("all faults");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of = of.map(|(_, names)| names.join(" "));
    let owner = "Unreadable Invalid Misplaced Unserved Unmatched PortSecurityKept VipsNotAllowed NotAllowed \
        NamespaceNotAllowed TooManyNics RetainTooLong FamilyMissing OutOfSubnet AddressHeld MacHeld PoolOutOfSubnet \
        PoolExhausted PoolRequired PoolNotExcluded DhcpByLauncher DhcpWithoutAddress DhcpOptions";
    // Of a policy: where it came later than the port.
    let operator = "Misplaced PortSecurityKept VipsNotAllowed NamespaceNotAllowed PolicyUnread RetainTooLong NadNotFound SwitchNotFound \
        SwitchAmbiguous NoSubnet SubnetExhausted NotAdvertised PoolNotExcluded SettingUnread \
        AddressDoubled MacDoubled LeaseOutside LeaseExcluded NameTaken NamespaceNotSelected ServedByAnotherInstance \
        TypeTaken GuestHasAnother ChassisGone ChassisAmbiguous DhcpOff DhcpOptions Rejected InvalidChassis";
    let passing = "Misplaced LeaseOutsidePool SwitchDeferred ChassisNotFound ChassisNotReady";
    assert_eq!(of, [owner, operator, passing]);
}

#[test]
fn a_problem_is_kept_small() {
    // Reports wait for the API server by the thousand.
    assert!(size_of::<Problem>() <= 96, "{}", size_of::<Problem>());
}
