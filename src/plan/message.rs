//! The sentences of a [`Problem`], and the reason of its Event.
//!
//! A message is two sentences: what is wrong, with the object and the value, and what to do. It goes into an Event, the
//! log and the annotation `ovn-kubevirt.io/ports`. Every value that comes from an object or a row is escaped and cut.
//! `tests/messages.rs` reads all of them.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use super::problem::{AllowRule, Holder, Problem, Requested};
use crate::contract::annotations::RETAIN;
use crate::contract::keys::{ALLOW, NAMESPACES};
use crate::escaped::{AnnotationsHave, Escaped, EscapedError, EscapedList, LISTED};
use crate::intent::Permission;
use crate::ipam::SubnetError;
use crate::ovn::mac_text;

impl Problem {
    /// The Event's reason. Operators and their alerts rely on these names: a new problem may get a new one, and none is
    /// changed.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_)
            | Self::Invalid(_)
            | Self::OutOfSubnet { .. }
            | Self::FamilyMissing { .. }
            | Self::PoolOutOfSubnet { .. } => "InvalidRequest",
            Self::Unserved(_) | Self::Unmatched(_) => "UnsupportedAnnotation",
            Self::PortSecurityKept { .. } => "PortSecurityKept",
            Self::NotAllowed { .. } | Self::VipsNotAllowed { .. } => "RequestNotAllowed",
            Self::NamespaceNotAllowed { .. } => "SwitchNotAllowed",
            Self::TooManyNics { .. } => "TooManyNics",
            Self::RetainTooLong { .. } => "RetainTooLong",
            Self::NadNotFound { .. } => "NadNotFound",
            Self::SwitchNotFound(_) => "SwitchNotFound",
            Self::SwitchAmbiguous { .. } => "SwitchAmbiguous",
            Self::NoSubnet { .. } => "SubnetMissing",
            Self::SubnetExhausted { .. } | Self::PoolExhausted { .. } => "SubnetExhausted",
            Self::PoolRequired { .. } | Self::PoolNotExcluded { .. } => "PoolRequired",
            Self::SettingUnread { .. } | Self::PolicyUnread { .. } => "SwitchSettingUnread",
            Self::LeaseOutside { .. } => "AddressOutsideSubnet",
            Self::LeaseOutsidePool { .. } => "AddressOutsidePool",
            Self::LeaseExcluded { .. } => "AddressExcluded",
            Self::AddressHeld { .. } | Self::MacHeld { .. } | Self::AddressDoubled { .. } | Self::MacDoubled { .. } => {
                "AddressConflict"
            }
            Self::NameTaken(_) => "PortNameConflict",
            Self::SwitchDeferred { .. } => "SwitchChangePending",
            Self::ChassisNotFound(_) | Self::ChassisGone { .. } => "ChassisNotFound",
            Self::ChassisAmbiguous { .. } => "ChassisAmbiguous",
            Self::ChassisNotReady { .. } => "ChassisNotReady",
            Self::NamespaceNotSelected(_) => "NamespaceNotSelected",
            Self::ServedByAnotherInstance { .. } => "ServedElsewhere",
            Self::TypeTaken { .. } => "PortTypeConflict",
            Self::GuestHasAnother { .. } => "GuestHasAnotherAddress",
            Self::NotAdvertised { .. } => "RouterNotAdvertised",
            Self::DhcpByLauncher { .. } | Self::DhcpOff { .. } | Self::DhcpWithoutAddress { .. } => "DhcpNotServed",
            Self::DhcpOptions { .. } => "DhcpOptionsRefused",
            Self::Rejected(_) => "CommitFailed",
            Self::Misplaced(_) => "MisplacedAnnotation",
            Self::InvalidChassis(..) => "InvalidChassisAnnotation",
        }
    }
}

impl Display for Problem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(
                formatter,
                "The VM cannot be read: {}. Correct its VirtualMachine or VirtualMachineInstance; its ports stay as \
                they are until then.",
                EscapedError(error)
            ),
            Self::Invalid(invalid) => invalid.fmt(formatter),
            Self::Misplaced(misplaced) => misplaced.fmt(formatter),
            Self::Unserved(keys) => write!(
                formatter,
                "{} no effect in ovn-kubevirt. Use ip_address, mac_address, logical_switch, ip_pool, ip_family, \
                port_security, port_vips, dhcp, dhcp-v4-options or dhcp-v6-options of a network, or ovn-kubevirt.io/retain.",
                AnnotationsHave(keys)
            ),
            Self::Unmatched(keys) => write!(
                formatter,
                "{} no effect: the VM has no such network. Begin the key with ovn.kubernetes.io/ for the pod network, \
                <nad>.<nad-namespace>.ovn.kubernetes.io/ for a network on a NAD, or <network>.ovn.kubernetes.io/ with \
                its name in the VM.",
                AnnotationsHave(keys)
            ),
            Self::PortSecurityKept { network, switch, rule, keeps: _ } => write!(
                formatter,
                "Port security of the network {} stays on: {}. Remove the annotation port_security, or have the operator \
                add \"{}\" there.",
                Escaped(network),
                rule.on(switch),
                rule.permission.word()
            ),
            Self::VipsNotAllowed { network, switch, rule, keeps: _ } => write!(
                formatter,
                "The guest may not speak with port_vips on the network {}: {}. Remove the annotation port_vips, or have the \
                operator add \"{}\" there.",
                Escaped(network),
                rule.on(switch),
                rule.permission.word()
            ),
            Self::DhcpByLauncher { network, binding } => write!(
                formatter,
                "OVN does not answer DHCP for the network {}: the binding of its interface is {binding}, so virt-launcher's \
                own DHCP server answers the guest. Remove the annotations about DHCP, or choose a binding that leaves DHCP to \
                the network, such as managedTap.",
                Escaped(network)
            ),
            Self::DhcpOff { network } => write!(
                formatter,
                "OVN does not answer DHCP for the network {}: ovn-kubevirt runs with --dhcp=never. Remove the annotations \
                about DHCP, or have the operator change --dhcp.",
                Escaped(network)
            ),
            Self::DhcpWithoutAddress { network } => write!(
                formatter,
                "OVN does not answer DHCP for the network {}: its port has no address. Remove the annotations about DHCP, or \
                request an address.",
                Escaped(network)
            ),
            Self::DhcpOptions { network, by_owner: _, error } => write!(
                formatter,
                "DHCP for the network {} stays as it is: with the options of its switch, {}. {}.",
                Escaped(network),
                error.problem(),
                error.remedy()
            ),
            Self::NotAllowed { requested, switch, rule } => not_allowed(formatter, requested, switch, *rule),
            Self::NamespaceNotAllowed { namespace, switch, on_switch, keeps: _ } => {
                namespace_not_allowed(formatter, namespace, switch, *on_switch)
            }
            Self::PolicyUnread { switch, key, word } => policy_unread(formatter, switch, key, word),
            Self::TooManyNics { namespace, limit } => write!(
                formatter,
                "The namespace {} has as many ports on OVN as --max-nics of ovn-kubevirt allows ({limit}). Delete VMs or NICs \
                in the namespace, or have the operator raise --max-nics: the port is made as soon as there is room.",
                Escaped(namespace)
            ),
            Self::RetainTooLong { requested, most, keeps: _ } => write!(
                formatter,
                "The annotation {RETAIN} is \"{requested}\", and --max-retain of ovn-kubevirt allows {most}, which is \
                kept instead. Write at most {most}, or have the operator raise --max-retain."
            ),
            Self::NadNotFound { network, nad } => write!(
                formatter,
                "The network {} gets no port: its NetworkAttachmentDefinition {} does not exist. Create it or name another; \
                the port is made as soon as it exists.",
                Escaped(network),
                Escaped(&nad.to_string())
            ),
            Self::SwitchNotFound(name) => write!(
                formatter,
                "The northbound database has no logical switch named {}. Create it or name another; the VM gets its \
                port as soon as the switch exists.",
                Escaped(name)
            ),
            Self::SwitchAmbiguous { name, count } => write!(
                formatter,
                "The northbound database has {count} logical switches named {}. Rename all but one of them.",
                Escaped(name)
            ),
            Self::NoSubnet { switch, reason } => no_subnet(formatter, switch, reason),
            Self::SubnetExhausted { switch, subnet, ipv4 } => write!(
                formatter,
                "The subnet of the logical switch {} ({}) has no free {} address. Delete VMs, shrink exclude_ips or \
                enlarge the subnet.",
                Escaped(switch),
                Nets(subnet),
                if *ipv4 { "IPv4" } else { "IPv6" }
            ),
            Self::OutOfSubnet { address, switch, subnet } => write!(
                formatter,
                "{address} cannot be used on the logical switch {}: its subnet is {}. Choose a host address in the \
                subnet.",
                Escaped(switch),
                Nets(subnet)
            ),
            Self::FamilyMissing { ipv4, switch, subnet } => write!(
                formatter,
                "The annotation ip_family asks for an {} address, and the logical switch {} has no such subnet ({}). \
                Choose another family or another switch.",
                if *ipv4 { "IPv4" } else { "IPv6" },
                Escaped(switch),
                Nets(subnet)
            ),
            Self::AddressHeld { address, switch, holder } => held(formatter, address, "address", switch, holder),
            Self::MacHeld { mac, switch, holder } => {
                held(formatter, &format_args!("MAC {}", mac_text(*mac)), "MAC", switch, holder)
            }
            Self::AddressDoubled { address, switch, holder } => {
                doubled(formatter, address, ("address", "the annotation ip_address"), switch, holder)
            }
            Self::MacDoubled { mac, switch, holder } => {
                doubled(formatter, &format_args!("MAC {}", mac_text(*mac)), ("MAC", "macAddress"), switch, holder)
            }
            Self::PoolOutOfSubnet { pool, switch, subnet } => write!(
                formatter,
                "No address of ip_pool ({}) can be used on the logical switch {}: its subnet is {}. Choose addresses \
                in the subnet.",
                Escaped(&pool.to_string()),
                Escaped(switch),
                Nets(subnet)
            ),
            Self::PoolExhausted { pool, switch } => write!(
                formatter,
                "No address of ip_pool ({}) is free on the logical switch {}. Delete VMs, or add addresses to the \
                pool.",
                Escaped(&pool.to_string()),
                Escaped(switch)
            ),
            Self::PoolRequired { switch, port, rule } => write!(
                formatter,
                "OVN itself allocates addresses to ports of the logical switch {} (such as {}) and might allocate \
                the address of the VM again. Request addresses that exclude_ips of the switch names, with the \
                annotation ip_pool or ip_address{}.",
                Escaped(switch),
                Escaped(port),
                Granted(*rule)
            ),
            Self::PoolNotExcluded { pool, switch, port, by_northd, rule } => write!(
                formatter,
                "OVN itself allocates addresses to ports of the logical switch {} (such as {}) and might allocate \
                those of ip_pool ({}), {}{}.",
                Escaped(switch),
                Escaped(port),
                Escaped(&pool.to_string()),
                if *by_northd {
                    "because northd stops reading exclude_ips at the first comma or other mark. Write that list with \
                    blanks between"
                } else {
                    "which are not all in exclude_ips. Add all of them to exclude_ips of the switch, or choose \
                    addresses that it names"
                },
                Granted(*rule)
            ),
            Self::SettingUnread { switch, unread } => {
                let unread: Vec<String> = unread.iter().map(ToString::to_string).collect();
                write!(
                    formatter,
                    "The logical switch {} has settings that are skipped, such as {}. Write subnet as address/length \
                    and ipv6_prefix as an address, without blanks around them; write exclude_ips as addresses of the \
                    subnet and ranges first..last, with blanks between.",
                    Escaped(switch),
                    unread.join(", ")
                )
            }
            Self::LeaseOutside { address, switch, subnet } => write!(
                formatter,
                "The VM keeps {address}, which is now outside the subnet of the logical switch {} ({}). Stop the VM \
                and request another address with the annotation ip_address to renumber it.",
                Escaped(switch),
                Nets(subnet)
            ),
            Self::LeaseOutsidePool { address, pool } => write!(
                formatter,
                "The VM keeps {address}, which is not in ip_pool ({}), while it runs. No action is needed: at its \
                next start it gets an address of the pool, if one is free.",
                Escaped(&pool.to_string())
            ),
            Self::LeaseExcluded { address, switch } => write!(
                formatter,
                "The VM keeps {address}, which exclude_ips of the logical switch {} now names. Remove the address \
                from exclude_ips, or stop the VM and request another with the annotation ip_address to renumber it.",
                Escaped(switch)
            ),
            Self::NameTaken(names) => name_taken(formatter, names),
            Self::SwitchDeferred { present, requested } => write!(
                formatter,
                "The VM runs on the logical switch {}, and the requested switch {} takes effect at its next start. No \
                action is needed; a restart of the VM applies the change.",
                Escaped(present),
                Escaped(requested)
            ),
            Self::ChassisNotFound(node) => write!(
                formatter,
                "The node {} has no chassis in the southbound database, so the port is not bound there until one \
                appears. Check that ovn-controller runs on the node; where its chassis has another name, annotate \
                the Node with ovn-kubevirt.io/chassis.",
                Escaped(node)
            ),
            Self::NamespaceNotSelected(namespace) => write!(
                formatter,
                "The namespace {} does not have the labels of --namespace-selector: ports of the VM stay and follow \
                it, but new NICs get none. Label the namespace, or have another instance of ovn-kubevirt serve it.",
                Escaped(namespace)
            ),
            Self::ServedByAnotherInstance { instance } => write!(
                formatter,
                "The instance {} of ovn-kubevirt serves this VM, so this instance makes no port for it. Let the \
                --namespace-selector of only one of the two select the namespace; where that instance no longer \
                runs, remove the annotation ovn-kubevirt.io/ports from the VM.",
                Escaped(instance)
            ),
            Self::TypeTaken { port, kind } => write!(
                formatter,
                "The port {port_} has the type {}, which the port of a VM must not have. Run ovn-nbctl lsp-set-type \
                {port_} '' if this is a mistake.",
                Escaped(kind),
                port_ = Escaped(port)
            ),
            Self::GuestHasAnother { guest } => write!(
                formatter,
                "The guest uses {guest}, which its port no longer has: the port was lost, and its addresses could \
                not all be allocated again. Restart the VM, so that the guest gets the addresses of the port."
            ),
            Self::NotAdvertised { switch, router_port, mode } => {
                not_advertised(formatter, switch, router_port, mode.as_deref())
            }
            Self::ChassisGone { node, chassis } => write!(
                formatter,
                "The southbound database has no row of the chassis {chassis} of the node {}: the port keeps \
                requested-chassis {chassis} and is bound when the row returns. Check that ovn-controller runs on the \
                node.",
                Escaped(node),
                chassis = Escaped(chassis)
            ),
            Self::ChassisAmbiguous { node, rows, kept } => chassis_ambiguous(formatter, node, rows, kept.as_deref()),
            Self::ChassisNotReady { node, chassis, port } => write!(
                formatter,
                "A migration has brought the guest to the node {}, and the chassis {} there does not have the port {port}: \
                the guest is unreachable until the chassis claims it. Check that ovn-controller runs on the node, and that the CNI has set \
                external_ids:iface-id={port} on the interface of the launcher pod.",
                Escaped(node),
                Escaped(chassis),
                port = Escaped(port)
            ),
            Self::Rejected(error) => write!(
                formatter,
                "The northbound database refused the ports of the VM: {}. Correct what the error names; the write is \
                repeated until it succeeds.",
                EscapedError(error)
            ),
            Self::InvalidChassis(node, invalid) => write!(
                formatter,
                "The annotation ovn-kubevirt.io/chassis of the node {} is \"{}\", which is not a chassis name: ports \
                on a chassis of the node stay there, and others are not bound. Write the name of one chassis, \
                without commas and blanks.",
                Escaped(node),
                Escaped(&invalid.value)
            ),
        }
    }
}

/// The rule by its place: `external_ids:ovn-kubevirt.io/allow of the logical switch blue does not have "excluded"`.
struct OnSwitch<'a>(AllowRule, &'a str);

impl AllowRule {
    fn on(self, switch: &str) -> OnSwitch<'_> {
        OnSwitch(self, switch)
    }
}

impl Display for OnSwitch<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(AllowRule { permission, on_switch }, switch) = self;
        match on_switch {
            true => write!(formatter, "external_ids:{ALLOW} of the logical switch {}", Escaped(switch))?,
            false => formatter.write_str("--allow of ovn-kubevirt")?,
        }
        write!(formatter, " does not have \"{}\"", permission.word())
    }
}

/// The condition that the operator has to meet first, at the end of a sentence.
struct Granted(Option<AllowRule>);

impl Display for Granted {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Some(AllowRule { permission, on_switch }) = self.0 else { return Ok(()) };
        let place = if on_switch { "external_ids:ovn-kubevirt.io/allow of the switch" } else { "--allow" };
        write!(formatter, ", once the operator has added \"{}\" to {place}", permission.word())
    }
}

fn not_allowed(formatter: &mut Formatter<'_>, requested: &Requested, switch: &str, rule: AllowRule) -> fmt::Result {
    let (on, word) = (Escaped(switch), rule.permission.word());
    match requested {
        Requested::Address(address) => write!(formatter, "{address} cannot be requested on the logical switch {on}")?,
        Requested::Pool(pool) => {
            let pool = pool.to_string();
            write!(formatter, "ip_pool ({}) cannot be requested on the logical switch {on}", Escaped(&pool))?;
        }
    }
    let what = match (rule.permission, requested) {
        (Permission::Excluded, Requested::Address(_)) => "exclude_ips names it, and ",
        (Permission::First, Requested::Address(_)) => "it is the first host address, and ",
        (Permission::Excluded, Requested::Pool(_)) => "exclude_ips names its addresses, and ",
        (Permission::First, Requested::Pool(_)) => "it has the first host address alone, and ",
        (Permission::Explicit | Permission::PortSecurityOff | Permission::LinkLocal | Permission::Vips, _) => "",
    };
    let instead = match rule.permission {
        Permission::Excluded | Permission::First => "Choose other addresses",
        Permission::Explicit | Permission::PortSecurityOff | Permission::LinkLocal | Permission::Vips => {
            "Remove the request"
        }
    };
    write!(formatter, ": {what}{}. {instead}, or have the operator add \"{word}\" there.", rule.on(switch))
}

fn namespace_not_allowed(formatter: &mut Formatter<'_>, namespace: &str, switch: &str, on_switch: bool) -> fmt::Result {
    let (namespace, switch) = (Escaped(namespace), Escaped(switch));
    write!(formatter, "The namespace {namespace} may not use the logical switch {switch}: ")?;
    match on_switch {
        true => write!(formatter, "external_ids:{NAMESPACES} of the switch does not name it")?,
        false => formatter.write_str("--switch-namespaces of ovn-kubevirt does not name it")?,
    }
    formatter.write_str(". Choose another switch, or have the operator add the namespace there.")
}

fn policy_unread(formatter: &mut Formatter<'_>, switch: &str, key: &str, word: &str) -> fmt::Result {
    let (switch, word) = (Escaped(switch), Escaped(word));
    write!(formatter, "external_ids:{key} of the logical switch {switch} has \"{word}\", which ")?;
    if key == NAMESPACES {
        formatter.write_str(
            "is not the name of a namespace, so no namespace gets a new port there. Write names with commas between, or *.",
        )
    } else {
        let words = Permission::ALL.map(Permission::word).join(", ");
        write!(formatter, "gives no permission. Write words out of {words}, with commas between.")
    }
}

fn no_subnet(formatter: &mut Formatter<'_>, switch: &str, reason: &SubnetError) -> fmt::Result {
    let switch = Escaped(switch);
    match reason {
        SubnetError::Missing => write!(
            formatter,
            "The logical switch {switch} has no subnet, so no address can be allocated on it. Set \
            other_config:subnet or ipv6_prefix, connect the switch to a router port with networks, or request a port \
            with a MAC alone by ip_address \"none\"."
        ),
        SubnetError::BadSubnet(value) => write!(
            formatter,
            "other_config:subnet of the logical switch {switch} is \"{}\", which is not an IPv4 network. Write one \
            address/length, as in 10.16.0.0/16.",
            Escaped(value)
        ),
        SubnetError::BadPrefix(value) => write!(
            formatter,
            "other_config:ipv6_prefix of the logical switch {switch} is \"{}\", which is not an IPv6 prefix. Write \
            it as in fd00:10:16:: or fd00:10:16::/64.",
            Escaped(value)
        ),
    }
}

/// A requested address or MAC that another holds.
fn held(formatter: &mut Formatter<'_>, claim: &dyn Display, kind: &str, switch: &str, holder: &Holder) -> fmt::Result {
    write!(
        formatter,
        "{claim} on the logical switch {} is held by {holder}. Choose another {kind}, or wait: it is granted as soon \
        as it is free.",
        Escaped(switch)
    )
}

/// An address or MAC of a lease that another holds as well; `by` is the request that changes it.
fn doubled(
    formatter: &mut Formatter<'_>,
    claim: &dyn Display,
    (kind, by): (&str, &str),
    switch: &str,
    holder: &Holder,
) -> fmt::Result {
    write!(
        formatter,
        "{claim} on the logical switch {} is held by the VM, which keeps it, and by {holder}, so both lose traffic. \
        Change the other holder, or give the VM another {kind} with {by} and restart it.",
        Escaped(switch)
    )
}

fn not_advertised(formatter: &mut Formatter<'_>, switch: &str, router_port: &str, mode: Option<&str>) -> fmt::Result {
    let (switch, router_port) = (Escaped(switch), Escaped(router_port));
    write!(formatter, "The router port {router_port} of the logical switch {switch} has ")?;
    match mode {
        None => formatter.write_str(
            "no ipv6_ra_configs:address_mode, so IPv6 guests get no router advertisement. Start ovn-kubevirt with \
            --manage-ra=true, or run",
        )?,
        Some(mode) => write!(
            formatter,
            "ipv6_ra_configs:address_mode={}, so IPv6 guests make addresses that port security drops. Run",
            Escaped(mode)
        )?,
    }
    write!(formatter, " ovn-nbctl set Logical_Router_Port {router_port} ipv6_ra_configs:address_mode=dhcpv6_stateful.")
}

fn name_taken(formatter: &mut Formatter<'_>, names: &[String]) -> fmt::Result {
    let names: Vec<String> = names.iter().map(|name| EscapedError(name).to_string()).collect();
    let (port_names, are, rows, one) = match names.len() {
        1 => ("name", "is", "a row that does", "that row"),
        _ => ("names", "are", "rows that do", "one of these rows"),
    };
    let names = names.join(" and ");
    write!(
        formatter,
        "The port {port_names} {names} {are} taken by {rows} not belong to this NIC. Delete {one}, or rename the VM."
    )
}

fn chassis_ambiguous(formatter: &mut Formatter<'_>, node: &str, rows: &[String], kept: Option<&str>) -> fmt::Result {
    write!(
        formatter,
        "The node {} has {} chassis rows in the southbound database ({}), and the port is ",
        Escaped(node),
        rows.len(),
        EscapedList(rows, ", ")
    )?;
    match kept {
        Some(kept) => write!(formatter, "on {}", Escaped(kept))?,
        None => formatter.write_str("bound by the one that claims it")?,
    }
    formatter.write_str(". Delete the stale row with ovn-sbctl chassis-del <name>.")
}

/// The holder as the owner of another VM would name it.
impl Display for Holder {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm { key, port } => {
                write!(formatter, "the VM {} (port {})", EscapedError(&key.to_string()), EscapedError(port))
            }
            Self::RouterPort { port } => write!(formatter, "the router port {}", EscapedError(port)),
            Self::OtherInstance { port, instance } => {
                write!(formatter, "the port {} of the ovn-kubevirt instance {}", EscapedError(port), Escaped(instance))
            }
            Self::ForeignPort { port } => {
                write!(formatter, "the port {}, which ovn-kubevirt does not manage", EscapedError(port))
            }
            Self::Gone => formatter.write_str("a port that was just deleted"),
            Self::Service(service) => formatter.write_str(service),
            Self::LostBy(vm) => {
                write!(formatter, "the guest of the VM {}, which lost its port", EscapedError(&vm.to_string()))
            }
        }
    }
}

/// The blocks of a subnet: `10.16.0.0/16, fd00::/64`.
struct Nets<'a>(&'a [IpNet]);

impl Display for Nets<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (index, net) in self.0.iter().take(LISTED).enumerate() {
            write!(formatter, "{}{net}", if index > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(formatter, ", {more} more"),
        }
    }
}
