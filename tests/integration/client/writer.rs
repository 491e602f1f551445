//! A program that writes random transactions over a few names, rows and addresses, so that they meet.

use std::sync::Arc;

use ovn_kubevirt::ovn::Northbound as View;
use ovn_kubevirt::ovsdb::{
    Atom, ColumnValue, Connection, Datum, Mutation, Mutator, Operation, Outcome, Session, Shared, Transaction,
};
use uuid::Uuid;

use super::{Numbers, shared, target};
use crate::support::eventually;

/// The names of VMs in the namespace `n`; all of these lists have names that need escapes and names that are not ASCII.
pub(super) const VMS: [&str; 4] = ["a", "b", "c\"\\", "dü→\u{1f600}"];
/// The names of switches, of which several may have one.
pub(super) const SWITCH_NAMES: [&str; 3] = ["s0", "s1", "s\\\"2\u{7f}ß"];
/// The names of ports, each of which one may have.
pub(super) const PORT_NAMES: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5\"", "p6\\", "p7é\u{1f600}\t"];
const ROUTER_PORT_NAMES: [&str; 3] = ["r0", "r1", "r2"];
/// The addresses that stand in [`ADDRESSES`] and elsewhere.
pub(super) const IPS: [&str; 9] =
    ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.7", "10.1.0.1", "10.1.0.9", "fd00::2", "fd00::7"];
/// The MACs, too.
pub(super) const MACS: [&str; 5] =
    ["0a:00:00:00:00:01", "0a:00:00:00:00:02", "0a:00:00:00:00:03", "0a:00:00:00:00:0a", "0a:00:00:00:00:0b"];
const ADDRESSES: [&str; 9] = [
    "0a:00:00:00:00:01 10.0.0.1",
    "0a:00:00:00:00:01 10.0.0.2 fd00::2",
    "0a:00:00:00:00:02 10.0.0.2",
    "0a:00:00:00:00:03 10.0.0.3 10.0.0.4",
    "0a:00:00:00:00:02",
    "dynamic",
    "unknown",
    "router",
    "nonsense \\ \" ü 10.0.0.7",
];
const NETWORKS: [&str; 4] = ["10.0.0.1/24", "10.1.0.1/24", "10.1.0.9/16", "fd00::7/64"];
const SETTINGS: [(&str, &str); 5] = [
    ("subnet", "10.0.0.0/24"),
    ("subnet", "10.1.0.0/16"),
    ("exclude_ips", "10.0.0.7"),
    ("ipv6_prefix", "fd00::"),
    ("note", "\"\\ü\n"),
];
/// Keys of `NB_Global.external_ids`.
pub(super) const GLOBAL_KEYS: [&str; 3] = ["ovn-kubevirt.io/epoch.default", "ovn-kubevirt.io/epoch.other", "ü\"\\"];
/// Keys of `Logical_Switch.external_ids`; the last is another program's.
const POLICY_KEYS: [&str; 3] = ["ovn-kubevirt.io/namespaces", "ovn-kubevirt.io/allow", "neutron:revision"];

const SWITCH: &str = "Logical_Switch";
const PORT: &str = "Logical_Switch_Port";
const ROUTER: &str = "Logical_Router";
const ROUTER_PORT: &str = "Logical_Router_Port";

/// The router that all router ports are of.
const THE_ROUTER: Uuid = Uuid::from_u128(0x400);

impl Numbers {
    /// A place in something of that length.
    pub(super) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("few");
        usize::try_from(self.below(length)).expect("few")
    }
}

/// A connection of the session, as soon as there can be one.
pub(super) async fn connected(session: &mut Session<View>) -> Connection {
    let session = tokio::sync::Mutex::new(session);
    eventually("the client is connected", || async {
        session.lock().await.connect().await.map_err(|error| error.to_string())
    })
    .await
}

/// A writer with a connection, and so a replica, of its own.
pub(super) struct Writer {
    pub(super) numbers: Numbers,
    pub(super) view: Arc<Shared<View>>,
    session: Session<View>,
    connection: Option<Connection>,
}

impl Writer {
    /// A writer that is connected at its first transaction.
    pub(super) fn new(remotes: &str, seed: u64) -> Self {
        let view = shared();
        let session = Session::new(target(remotes, 5), Arc::clone(&view));
        Self { numbers: Numbers(seed), view, session, connection: None }
    }

    /// Makes what the others go on: a switch of each name, and the router that router ports are of.
    pub(super) async fn begin(&mut self) {
        let row = |name: &str| vec![("name", Datum::One(name.into()))];
        let switches = (0..).zip(SWITCH_NAMES).map(|(number, name)| Operation::Insert {
            table: SWITCH,
            uuid: Uuid::from_u128(0x200 + number),
            row: row(name),
        });
        let router = Operation::Insert { table: ROUTER, uuid: THE_ROUTER, row: row("router") };
        let operations = switches.chain([router]).collect();
        let outcome = self.send(&Transaction { fence: None, operations }).await;
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }

    /// Its connection, which is made if there is none.
    pub(super) async fn connection(&mut self) -> &Connection {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = None;
            self.connection = Some(connected(&mut self.session).await);
        }
        self.connection.as_ref().expect("made above")
    }

    /// Loses its connection.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Has all that was committed before.
    pub(super) async fn catch_up(&mut self) {
        let nothing = Transaction::default();
        while !matches!(self.send(&nothing).await, Outcome::Committed { .. }) {}
    }

    /// Sends a transaction.
    pub(super) async fn send(&mut self, transaction: &Transaction) -> Outcome {
        self.connection().await.transact(transaction).await
    }

    /// Sends any transaction, and says whether it was committed.
    pub(super) async fn write(&mut self) -> Written {
        self.connection().await;
        let transaction = self.any_transaction();
        match self.send(&transaction).await {
            Outcome::Committed { .. } => Written::Committed,
            Outcome::Rejected(_) => Written::Rejected,
            Outcome::NotSent | Outcome::Unknown(_) => Written::Unknown,
            Outcome::Fenced | Outcome::Raced => panic!("there is no fence and no guard"),
        }
    }

    /// Any transaction. The server refuses many of them.
    fn any_transaction(&mut self) -> Transaction {
        let count = 1 + self.numbers.below(3);
        let operations = (0..count).flat_map(|_| self.any_step()).collect();
        Transaction { fence: None, operations }
    }

    fn any_step(&mut self) -> Vec<Operation> {
        match self.numbers.below(16) {
            0..=3 => self.port_written(),
            4 => self.port_mutated(),
            5 => self.port_moved(),
            6 => self.port_taken_off(),
            7 => vec![Operation::Delete { table: PORT, uuid: self.port() }],
            8 => self.names_traded(),
            9 | 10 => self.switch_written(),
            11 => self.switch_configured(),
            12 | 13 => self.router_port_written(),
            14 => self.global_written(),
            _ => self.rarely(),
        }
    }

    /// The rarer operations.
    fn rarely(&mut self) -> Vec<Operation> {
        match self.numbers.below(4) {
            0 => vec![Operation::Delete { table: SWITCH, uuid: self.switch() }],
            1 => {
                let row = vec![("ports", Datum::Set(Vec::new()))];
                vec![Operation::Update { table: SWITCH, uuid: self.switch(), row }]
            }
            // On a second switch, too.
            2 => vec![refer(SWITCH, self.switch(), Mutator::Insert, self.port())],
            // No row refers to it: collected.
            _ => vec![Operation::Insert { table: PORT, uuid: self.port(), row: self.port_row() }],
        }
    }

    fn port_written(&mut self) -> Vec<Operation> {
        let (uuid, row) = (self.port(), self.port_row());
        if self.view.read().port(&uuid).is_none() {
            let insert = Operation::Insert { table: PORT, uuid, row };
            return vec![insert, refer(SWITCH, self.present_switch(), Mutator::Insert, uuid)];
        }
        let mut row = row;
        row.retain(|_| self.numbers.below(2) == 0);
        vec![Operation::Update { table: PORT, uuid, row }]
    }

    fn port_mutated(&mut self) -> Vec<Operation> {
        let addresses = self.some(&ADDRESSES, 2);
        let mark = self.marks().into_iter().next().unwrap_or(("vendor", "nobody".to_owned()));
        let mutations = vec![
            mutation("addresses", self.mutator(), Datum::texts(addresses.iter().copied())),
            mutation("external_ids", Mutator::Delete, Datum::texts([mark.0])),
            mutation("external_ids", Mutator::Insert, Datum::map([(mark.0, mark.1.as_str())])),
            mutation("options", Mutator::Delete, Datum::texts([self.numbers.pick(&["router-port", "virtual-ip"])])),
        ];
        let count = 1 + self.numbers.below(4);
        let mutations = mutations.into_iter().filter(|_| self.numbers.below(count) == 0).collect();
        vec![Operation::Mutate { table: PORT, uuid: self.port(), mutations }]
    }

    fn port_moved(&mut self) -> Vec<Operation> {
        let (uuid, to) = (self.port(), self.present_switch());
        let from = self.view.read().port(&uuid).and_then(|port| port.switch);
        let mut moved = vec![refer(SWITCH, to, Mutator::Insert, uuid)];
        if let Some(from) = from.filter(|from| *from != to) {
            moved.push(refer(SWITCH, from, Mutator::Delete, uuid));
        }
        if self.numbers.below(2) == 0 {
            moved.reverse();
        }
        moved
    }

    fn port_taken_off(&mut self) -> Vec<Operation> {
        let uuid = self.port();
        let Some(from) = self.view.read().port(&uuid).and_then(|port| port.switch) else { return Vec::new() };
        let mut steps = vec![refer(SWITCH, from, Mutator::Delete, uuid)];
        if self.numbers.below(2) == 0 {
            steps.push(Operation::Delete { table: PORT, uuid });
        }
        steps
    }

    fn names_traded(&mut self) -> Vec<Operation> {
        let view = Arc::clone(&self.view);
        let view = view.read();
        if self.numbers.below(3) == 0 {
            let rows: Vec<(Uuid, String)> = view.router_ports().map(|(uuid, row)| (*uuid, row.name.clone())).collect();
            let [(one, first), (other, second), ..] = &rows[..] else { return Vec::new() };
            return vec![named(ROUTER_PORT, *one, second), named(ROUTER_PORT, *other, first)];
        }
        let (one, other) = (self.port(), self.port());
        let (Some(first), Some(second)) = (view.port(&one), view.port(&other)) else { return Vec::new() };
        vec![named(PORT, one, &second.row.name), named(PORT, other, &first.row.name)]
    }

    fn switch_written(&mut self) -> Vec<Operation> {
        let (uuid, name) = (self.switch(), self.numbers.pick(&SWITCH_NAMES));
        if self.view.read().switch(&uuid).is_none() {
            let row = vec![("name", Datum::One(name.into())), ("other_config", self.settings())];
            return vec![Operation::Insert { table: SWITCH, uuid, row }];
        }
        if self.numbers.below(3) > 0 {
            return Vec::new();
        }
        vec![named(SWITCH, uuid, name)]
    }

    fn switch_configured(&mut self) -> Vec<Operation> {
        let uuid = self.switch();
        if self.numbers.below(3) == 0 {
            let (key, value) = (self.numbers.pick(&POLICY_KEYS), self.numbers.pick(&["*", "n", "explicit"]));
            let external_ids = match self.numbers.below(3) {
                0 => mutation("external_ids", Mutator::Delete, Datum::texts([key])),
                _ => mutation("external_ids", Mutator::Insert, Datum::map([(key, value)])),
            };
            return vec![Operation::Mutate { table: SWITCH, uuid, mutations: vec![external_ids] }];
        }
        if self.numbers.below(2) == 0 {
            let row = vec![("other_config", self.settings())];
            return vec![Operation::Update { table: SWITCH, uuid, row }];
        }
        let mutations = vec![mutation("other_config", Mutator::Insert, self.settings())];
        vec![Operation::Mutate { table: SWITCH, uuid, mutations }]
    }

    fn router_port_written(&mut self) -> Vec<Operation> {
        let uuid = Uuid::from_u128(0x300 + u128::from(self.numbers.below(3)));
        let row = vec![
            ("name", Datum::One(self.numbers.pick(&ROUTER_PORT_NAMES).into())),
            ("mac", Datum::One(self.numbers.pick(&MACS[3..]).into())),
            ("networks", Datum::texts(self.some(&NETWORKS, 2))),
        ];
        let present = self.view.read().router_ports().any(|(present, _)| *present == uuid);
        match (present, self.numbers.below(3)) {
            (false, _) => vec![
                Operation::Insert { table: ROUTER_PORT, uuid, row },
                refer(ROUTER, THE_ROUTER, Mutator::Insert, uuid),
            ],
            (true, 0) => vec![refer(ROUTER, THE_ROUTER, Mutator::Delete, uuid)],
            (true, _) => vec![Operation::Update { table: ROUTER_PORT, uuid, row }],
        }
    }

    fn global_written(&mut self) -> Vec<Operation> {
        let Some(uuid) = self.view.read().global() else { return Vec::new() };
        let (key, value) = (self.numbers.pick(&GLOBAL_KEYS), format!("{}.x", self.numbers.below(9)));
        let column = self.numbers.pick(&["nb_cfg", "sb_cfg"]);
        let mutations = match self.numbers.below(3) {
            0 => vec![mutation(column, Mutator::Add, Datum::One(1_i64.into()))],
            1 => vec![mutation("external_ids", Mutator::Delete, Datum::texts([key]))],
            _ => vec![mutation("external_ids", Mutator::Insert, Datum::map([(key, value.as_str())]))],
        };
        vec![Operation::Mutate { table: "NB_Global", uuid, mutations }]
    }

    fn port_row(&mut self) -> Vec<ColumnValue> {
        let marks = self.marks();
        let marks = Datum::map(marks.iter().map(|(key, value)| (*key, value.as_str())));
        let options = [
            ("qos_max_rate", "1"),
            ("router-port", self.numbers.pick(&ROUTER_PORT_NAMES)),
            ("virtual-ip", "10.0.0.7"),
            ("requested-chassis", "hv1"),
        ];
        let options: Vec<_> = options.into_iter().filter(|_| self.numbers.below(2) == 0).collect();
        let dynamic = self.some(&ADDRESSES, 1);
        vec![
            ("name", Datum::One(self.numbers.pick(&PORT_NAMES).into())),
            ("type", Datum::One(self.numbers.pick(&["", "", "", "router", "router", "virtual", "localnet"]).into())),
            ("addresses", Datum::texts(self.some(&ADDRESSES, 2))),
            ("dynamic_addresses", Datum::texts(dynamic)),
            ("port_security", Datum::texts(self.some(&ADDRESSES, 1))),
            ("options", Datum::map(options)),
            ("external_ids", marks),
        ]
    }

    /// The marks of a row: whole, lacking one, or those of another.
    fn marks(&mut self) -> Vec<(&'static str, String)> {
        let vm = format!("n/{}", self.numbers.pick(&VMS));
        let mut marks = vec![
            ("vendor", self.numbers.pick(&["ovn-kubevirt", "ovn-kubevirt", "ovn-kubevirt", "kube-ovn"]).to_owned()),
            ("ovn-kubevirt.io/instance", self.numbers.pick(&["default", "default", "default", "other"]).to_owned()),
            ("ovn-kubevirt.io/vm", vm),
            ("ovn-kubevirt.io/network", self.numbers.pick(&["default", "net1"]).to_owned()),
        ];
        match self.numbers.below(6) {
            0 => drop(marks.remove(self.numbers.index(4))),
            1 => marks.push(("note", self.numbers.pick(&ADDRESSES).to_owned())),
            2 => marks.push(("ovn-kubevirt.io/next-addresses", self.numbers.pick(&ADDRESSES).to_owned())),
            _ => {}
        }
        let first = self.numbers.index(marks.len());
        marks.rotate_left(first);
        marks
    }

    fn settings(&mut self) -> Datum {
        let settings = SETTINGS.into_iter().filter(|_| self.numbers.below(3) == 0);
        let settings: std::collections::BTreeMap<_, _> = settings.collect();
        Datum::map(settings)
    }

    fn some(&mut self, of: &[&'static str], most: u64) -> Vec<&'static str> {
        let count = self.numbers.below(most + 1);
        let some: std::collections::BTreeSet<_> = (0..count).map(|_| self.numbers.pick(of)).collect();
        some.into_iter().collect()
    }

    fn mutator(&mut self) -> Mutator {
        if self.numbers.below(2) == 0 { Mutator::Insert } else { Mutator::Delete }
    }

    fn port(&mut self) -> Uuid {
        Uuid::from_u128(0x100 + u128::from(self.numbers.below(10)))
    }

    fn switch(&mut self) -> Uuid {
        Uuid::from_u128(0x200 + u128::from(self.numbers.below(4)))
    }

    /// One that is there, as far as is known.
    fn present_switch(&mut self) -> Uuid {
        let mut uuid = self.switch();
        for _ in 0..4 {
            if self.view.read().switch(&uuid).is_some() {
                break;
            }
            uuid = self.switch();
        }
        uuid
    }
}

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Committed,
    Rejected,
    Unknown,
}

fn mutation(column: &'static str, mutator: Mutator, value: Datum) -> Mutation {
    Mutation { column, mutator, value }
}

/// A row's `ports` takes up or lets go of another row.
fn refer(table: &'static str, uuid: Uuid, mutator: Mutator, row: Uuid) -> Operation {
    let mutations = vec![mutation("ports", mutator, Datum::Set(vec![Atom::Uuid(row)]))];
    Operation::Mutate { table, uuid, mutations }
}

fn named(table: &'static str, uuid: Uuid, name: &str) -> Operation {
    Operation::Update { table, uuid, row: vec![("name", Datum::One(name.into()))] }
}
