//! The operator's policy on a decision: the switches that a namespace may use, the requests that an owner may make there,
//! and the number of ports that a namespace may have.
//!
//! A policy is asked about what a port does not have yet: a new port, another switch, another address. A lease that
//! stands, a reservation among them, is never measured by it.

use std::net::IpAddr;

use super::problem::{AllowRule, Problem, Requested};
use super::remarks::Refusal;
use super::switch_policy::SwitchPolicy;
use super::view::{Switch, View};
use crate::contract::keys;
use crate::escaped::shortened;
use crate::intent::{Permission, Permissions, PortIntent, Seat, SwitchRequest, UnknownWord, VmIntent};
use crate::ipam::{AddressPool, AddressSet, Block, Openness, Pool, Subnet};
use crate::ovn::Wake;

impl View<'_> {
    /// Checks that the VM's namespace may use a switch.
    pub(super) fn may_use(&self, switch: &Switch, request: &SwitchRequest, standing: bool) -> Result<(), Refusal> {
        let (name, namespace) = (&switch.name, &self.vm.namespace);
        let on_switch = self.snapshot.policy_on(switch.uuid);
        if on_switch.lets(namespace, name, &self.snapshot.settings.policy) {
            return Ok(());
        }
        if let Some(Err(word)) = &on_switch.namespaces {
            return Err(Refusal::on_switch(name, unread(switch, keys::NAMESPACES, word)));
        }
        let problem = Problem::NamespaceNotAllowed {
            namespace: namespace.clone(),
            switch: name.clone(),
            on_switch: on_switch.namespaces.is_some(),
            keeps: standing && !request.of_vm,
        };
        Err(Refusal::on_switch(name, problem))
    }

    /// The permissions of owners on a switch.
    fn permissions(&self, switch: &Switch) -> Permissions {
        let on_switch = self.snapshot.policy_on(switch.uuid);
        on_switch.allow.as_ref().map_or(self.snapshot.settings.policy.allow, |(permissions, _)| *permissions)
    }

    /// The rule that does not give a permission on a switch; `None` if the permission is given.
    pub(super) fn lacks(&self, switch: &Switch, permission: Permission) -> Option<AllowRule> {
        let on_switch = self.snapshot.policy_on(switch.uuid).allow.is_some();
        (!self.permissions(switch).has(permission)).then_some(AllowRule { permission, on_switch })
    }

    /// Returns true if a port may have an address of the switch again that it had before its row was lost.
    pub(super) fn may_return(&self, switch: &Switch, block: &Block, address: IpAddr) -> bool {
        let permissions = self.permissions(switch);
        (permissions.has(Permission::Excluded) || !block.excludes(address))
            && (permissions.has(Permission::First) || !block.keeps_first(address))
    }

    /// Checks that the owner may name an address of a switch.
    pub(super) fn may_name(&self, switch: &Switch, block: &Block, address: IpAddr) -> Result<(), Refusal> {
        let needed = [
            Some(Permission::Explicit),
            Some(Permission::Excluded).filter(|_| block.excludes(address)),
            Some(Permission::First).filter(|_| block.keeps_first(address)),
        ];
        match needed.into_iter().flatten().find_map(|permission| self.lacks(switch, permission)) {
            None => Ok(()),
            Some(rule) => Err(not_allowed(switch, Requested::Address(address), rule)),
        }
    }

    /// The kept addresses of a switch that a pool may take in.
    pub(super) fn openness(&self, switch: &Switch) -> Openness {
        let permissions = self.permissions(switch);
        Openness { excluded: permissions.has(Permission::Excluded), first: permissions.has(Permission::First) }
    }

    /// Checks that the owner may name a pool: one with addresses that are open to its VMs.
    pub(super) fn may_choose_from(
        &self,
        switch: &Switch,
        subnet: &Subnet,
        ipv4: bool,
        pool: &AddressPool,
    ) -> Result<(), Refusal> {
        let open = self.openness(switch);
        let has_any = |open: Openness| {
            let spans = subnet.open_spans(ipv4, Some(pool), open);
            Pool::<()>::default().lowest_free(&spans, &[], &AddressSet::default()).is_some()
        };
        let lacking = if !self.permissions(switch).has(Permission::Explicit) {
            Permission::Explicit
        } else if has_any(open) {
            return Ok(());
        } else if open.first || has_any(Openness { excluded: true, ..open }) {
            Permission::Excluded
        } else {
            Permission::First
        };
        let refusal = |rule| not_allowed(switch, Requested::Pool(Box::new(pool.clone())), rule);
        self.lacks(switch, lacking).map_or(Ok(()), |rule| Err(refusal(rule)))
    }

    /// Reports the words of the policy on a switch that are skipped.
    pub(super) fn unread_policy(&self, switch: &Switch) -> Vec<Problem> {
        let SwitchPolicy { namespaces, allow } = &*self.snapshot.policy_on(switch.uuid);
        let namespaces = namespaces.as_ref().and_then(|namespaces| namespaces.as_ref().err());
        let allow = allow.as_ref().and_then(|(_, unknown)| unknown.as_ref());
        let skipped = [(keys::NAMESPACES, namespaces), (keys::ALLOW, allow)];
        skipped.into_iter().filter_map(|(key, word)| word.map(|word| unread(switch, key, word))).collect()
    }

    /// Checks that a NIC without a port may get one: its NAD exists.
    pub(super) fn has_its_nad(&self, nic: &PortIntent) -> Result<(), Refusal> {
        match &nic.missing_nad {
            None => Ok(()),
            // The cluster model names the VM when the NAD appears.
            Some(nad) => Err(Refusal::Problem(
                Problem::NadNotFound { network: nic.network.clone(), nad: nad.clone() },
                Vec::new(),
            )),
        }
    }

    /// Returns true if a new port takes the place of another one: the guest has moved to another network while this
    /// service was away, and the row that it has left goes in the same transaction.
    pub(super) fn replaces_another(&self, nic: &PortIntent) -> bool {
        let is_its = |(network, _): (&str, _)| network == nic.network;
        nic.seat == Seat::Moved && self.northbound().ports_of(self.vm).any(is_its)
    }

    /// Checks that the VM's namespace may have another port.
    pub(super) fn may_have_another_port(&self) -> Result<(), Refusal> {
        let Some(limit) = self.snapshot.settings.policy.max_nics else { return Ok(()) };
        let namespace = &self.vm.namespace;
        let own = self.northbound().ports_in(namespace) + self.own.new_ports_in(namespace);
        if own >= limit {
            let problem = Problem::TooManyNics { namespace: namespace.clone(), limit };
            return Err(Refusal::Problem(problem, vec![Wake::Namespace(namespace.clone())]));
        }
        // The transaction determines if the other VMs get the last places.
        if own + self.batch.new_ports_in(namespace) >= limit { Err(Refusal::Batch) } else { Ok(()) }
    }

    /// Reports a retention time that is longer than the operator allows.
    pub(super) fn retains_too_long(&self, intent: &VmIntent) -> Option<Problem> {
        let (requested, most) = (intent.retain?, self.snapshot.settings.longest_retention());
        let keeps = self.northbound().ports_of(self.vm).next().is_some();
        (requested > most).then_some(Problem::RetainTooLong { requested, most, keeps })
    }
}

fn not_allowed(switch: &Switch, requested: Requested, rule: AllowRule) -> Refusal {
    Refusal::on_switch(&switch.name, Problem::NotAllowed { requested, switch: switch.name.clone(), rule })
}

fn unread(switch: &Switch, key: &'static str, UnknownWord(word): &UnknownWord) -> Problem {
    Problem::PolicyUnread { switch: switch.name.clone(), key, word: shortened(word.clone()) }
}
