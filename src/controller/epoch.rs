//! Fencing: an epoch in the database itself, compared by every transaction.
//!
//! `NB_Global.external_ids` holds `ovn-kubevirt.io/epoch.<instance>` = `<n>.<random holder id>`. It is raised on each
//! new connection, before any read: transactions of an older epoch (a killed process, a broken connection) cannot
//! commit after it, because each has a `wait` on its own epoch. OVSDB's locks do not give this on a cluster: they are
//! granted per server.
//!
//! The same transaction, with the same condition, writes the cluster that the instance belongs to
//! (`ovn-kubevirt.io/cluster.<instance>`, see `identity.rs`). The fence contains it, too: a write by a process of
//! another cluster stops this one at its next transaction, before its replica shows the change.

use std::sync::Arc;

use uuid::Uuid;

use super::identity::{OtherCluster, Ownership};
use crate::contract::{epoch_key, epoch_number};
use crate::ovn::{NbGlobal, Northbound};
use crate::ovsdb::{
    Condition, Connection, Datum, Function, Map, Mutation, Mutator, Operation, Outcome, Row, Transaction, Until,
    WireUuid,
};

/// The reason why office could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// Another process has taken it since.
    #[error(
        "{key} in NB_Global:external_ids is {found}, which differs from the value that this process wrote: another ovn-kubevirt of instance \"{instance}\" has taken over, or another program rewrote the column. Without a Lease, run one process, or give each its --instance"
    )]
    Deposed {
        /// The key.
        key: String,
        /// The present value.
        found: String,
        /// The instance.
        instance: String,
    },
    /// The instance belongs to another cluster.
    #[error(transparent)]
    OtherCluster(#[from] OtherCluster),
    /// The database is not initialised.
    #[error("NB_Global has {0} rows instead of one: is ovn-northd running, or run `ovn-nbctl init`")]
    NotInitialised(usize),
    /// The transaction failed.
    #[error("taking office failed: {0}")]
    Failed(String),
}

/// The epoch of an office.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// The first operation of each transaction.
    pub fence: Operation,
    /// The key in `NB_Global:external_ids`.
    pub key: String,
    /// The value of the key while this process is in office.
    pub value: String,
    /// The key in `NB_Global:external_ids` that names the cluster of the instance.
    pub cluster_key: String,
    /// The value of that key while this process is in office.
    pub cluster: Arc<str>,
}

impl Epoch {
    /// Returns true if the replica shows the epoch and the cluster that were written when office was taken.
    pub fn stands_in(&self, northbound: &Northbound) -> bool {
        northbound.global_external_id(&self.key) == Some(&self.value)
            && northbound.global_external_id(&self.cluster_key) == Some(&self.cluster)
    }
}

/// The epochs of this process, and their key.
#[derive(Debug)]
pub(super) struct Epochs {
    instance: String,
    key: String,
    ownership: Ownership,
    /// The next epoch is greater than this.
    highest: u64,
    /// The term of the Lease in which `ours` were tried.
    term: Option<u64>,
    /// The values of the key that show no other process: the present or found one, and those tried with unknown
    /// outcome. If empty, any value is taken over.
    ours: Vec<Option<String>>,
}

#[derive(Debug, serde::Deserialize)]
struct Global {
    #[serde(rename = "_uuid")]
    uuid: WireUuid,
    external_ids: Map,
}

impl Epochs {
    /// For an instance, and the cluster that it is taken over from, if any.
    pub(super) fn new(ownership: Ownership, instance: &str) -> Self {
        let key = epoch_key(instance);
        Self { instance: instance.to_owned(), key, ownership, highest: 0, term: None, ours: Vec::new() }
    }

    /// Forgets the epochs after a rollback of the database: any epoch there is taken over.
    pub(super) fn forget(&mut self) {
        self.ours.clear();
    }

    /// Raises the epoch by compare-and-set and returns the new one. It is greater than the term of the Lease, than all
    /// that were `seen`, and than the present one. A process that had office before in this term is deposed by the
    /// epoch of another. An instance that belongs to another cluster than `cluster` is left unchanged.
    pub(super) async fn raise(
        &mut self,
        connection: &Connection,
        term: u64,
        seen: u64,
        cluster: &Arc<str>,
    ) -> Result<Epoch, EpochError> {
        if self.term.replace(term) != Some(term) {
            self.ours.clear();
        }
        self.highest = self.highest.max(term).max(seen);
        loop {
            let Global { uuid: WireUuid(uuid), external_ids } = self.read(connection).await?;
            let owner = external_ids.get(&self.ownership.key);
            self.ownership.check(owner, cluster)?;
            let present = external_ids.get(&self.key).map(ToOwned::to_owned);
            if !self.ours.is_empty() && !self.ours.contains(&present) {
                return Err(self.deposed_by(present));
            }
            let taken = present.as_deref().and_then(epoch_number).unwrap_or(0);
            self.highest = self.highest.max(taken).saturating_add(1);
            let epoch = format!("{}.{}", self.highest, Uuid::new_v4().simple());
            // Recorded before it is sent: if the caller goes away, the outcome is unknown.
            let before = self.ours.clone();
            if self.ours.is_empty() {
                self.ours.push(present.clone());
            }
            self.ours.push(Some(epoch.clone()));
            let swaps = [
                Swap { key: &self.key, present: present.as_deref(), value: &epoch },
                Swap { key: &self.ownership.key, present: owner, value: cluster },
            ];
            let transaction = Transaction { fence: None, operations: swap(uuid, &swaps) };
            match connection.transact(&transaction).await {
                Outcome::Committed { .. } => {
                    let fence = stand(swaps.iter().map(|swap| (swap.key, swap.value)));
                    self.ownership.log(owner, cluster);
                    return Ok(self.raised(fence, epoch, cluster));
                }
                Outcome::Unknown(reason) => return Err(EpochError::Failed(reason)),
                // The transaction did not and will not commit.
                Outcome::Rejected(rejection) => {
                    self.ours = before;
                    // Another process was faster: read again.
                    if rejection.kind != crate::ovsdb::RejectionKind::TimedOut {
                        return Err(EpochError::Failed(rejection.to_string()));
                    }
                }
                Outcome::NotSent | Outcome::Fenced | Outcome::Raced => {
                    self.ours = before;
                    return Err(EpochError::Failed("not sent".to_owned()));
                }
            }
        }
    }

    /// The epoch is committed: earlier tries with unknown outcome can no longer commit.
    fn raised(&mut self, fence: Operation, value: String, cluster: &Arc<str>) -> Epoch {
        self.ours = vec![Some(value.clone())];
        let (key, cluster_key) = (self.key.clone(), self.ownership.key.clone());
        Epoch { fence, key, cluster_key, cluster: Arc::clone(cluster), value }
    }

    fn deposed_by(&self, present: Option<String>) -> EpochError {
        let found = present.map_or_else(|| "missing".to_owned(), |present| format!("\"{present}\""));
        EpochError::Deposed { key: self.key.clone(), found, instance: self.instance.clone() }
    }

    async fn read(&self, connection: &Connection) -> Result<Global, EpochError> {
        let select = Operation::Select {
            table: NbGlobal::TABLE.name,
            conditions: Vec::new(),
            columns: vec!["_uuid", "external_ids"],
        };
        let outcome = connection.transact(&Transaction { fence: None, operations: vec![select] }).await;
        let Outcome::Committed { results, .. } = outcome else {
            return Err(EpochError::Failed(format!("NB_Global could not be read: {outcome:?}")));
        };
        let mut rows: Vec<Global> = match results.first().map(crate::ovsdb::OperationResult::rows) {
            Some(Ok(rows)) => rows,
            other => return Err(EpochError::Failed(format!("NB_Global could not be read: {other:?}"))),
        };
        match (rows.len(), rows.pop()) {
            (1, Some(row)) => Ok(row),
            (count, _) => Err(EpochError::NotInitialised(count)),
        }
    }
}

/// The replacement of a key's value in `NB_Global:external_ids`, if it is still the value that was read.
struct Swap<'a> {
    key: &'a str,
    present: Option<&'a str>,
    value: &'a str,
}

/// Replaces each value that was read, or inserts it if the key was missing. Fails if any has changed since.
fn swap(uuid: Uuid, swaps: &[Swap<'_>]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut mutations = Vec::new();
    let present: Vec<(&str, &str)> = swaps.iter().filter_map(|swap| Some((swap.key, swap.present?))).collect();
    if !present.is_empty() {
        let value = Datum::texts(present.iter().map(|(key, _)| *key));
        operations.push(stand(present));
        mutations.push(Mutation { column: "external_ids", mutator: Mutator::Delete, value });
    }
    // `insert` keeps a key that was added in between; then the second wait fails.
    let value = Datum::map(swaps.iter().map(|swap| (swap.key, swap.value)));
    mutations.push(Mutation { column: "external_ids", mutator: Mutator::Insert, value });
    operations.push(Operation::Mutate { table: NbGlobal::TABLE.name, uuid, mutations });
    operations.push(stand(swaps.iter().map(|swap| (swap.key, swap.value))));
    operations
}

/// A wait for all of these pairs in `NB_Global:external_ids`.
fn stand<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Operation {
    Operation::Wait {
        table: NbGlobal::TABLE.name,
        conditions: vec![Condition { column: "external_ids", function: Function::Includes, value: Datum::map(pairs) }],
        columns: vec!["_uuid"],
        until: Until::NotEqual,
        rows: Vec::new(),
    }
}
