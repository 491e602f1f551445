//! Answers to questions, on the writer's own snapshot.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::sending::{seconds_since_the_epoch, seen};
use super::{Role, Writer};
use crate::controller::asking::Moment;
use crate::plan::{Claims, Snapshot};

/// A replica is not current if its server has been silent for this much longer than the probe's interval.
const BEHIND_THE_PROBE: Duration = Duration::from_secs(2);

impl Writer {
    /// Answers the new questions, and those about VMs decided in the meantime.
    pub(super) fn answer_questions(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        let current = self.is_current();
        let due = self.questions.take_due(current.is_ok());
        if due.is_empty() {
            return;
        }
        if let Err(reason) = current {
            due.into_iter().for_each(|mut question| question.fail(&reason));
            return;
        }
        let mut open = Vec::new();
        let releases = RefCell::default();
        {
            let view = Arc::clone(&self.northbound);
            let view = view.read();
            let southbound = self.southbound.as_ref().map(|feed| (*feed.in_sync.borrow(), feed.replica.read()));
            let seen = seen(southbound.as_ref(), &self.settling);
            let snapshot = Snapshot::new(&view, &self.cluster, seen, &self.settings, seconds_since_the_epoch());
            let snapshot = snapshot.with(&self.lost, self.brake.held()).releasing(&self.releasing);
            let in_flight = self.in_flight.iter().flat_map(|flight| flight.batch.changes());
            let prepared = self.pipeline.prepared().into_iter().flat_map(|batch| batch.changes());
            let claims = Claims::of(in_flight.chain(prepared));
            let leads = self.role() == Some(Role::Leads);
            let moment =
                Moment { snapshot: &snapshot, claims: &claims, ledger: &self.ledger, leads, releases: &releases };
            for mut question in due {
                if !question.ask(&moment) {
                    open.push(question);
                }
            }
        }
        open.into_iter().for_each(|question| self.questions.keep(question));
        for vm in releases.into_inner() {
            tracing::info!(namespace = vm.namespace, vm = vm.name, "an operator releases the retained ports of the VM");
            self.releasing.insert(vm.clone());
            self.dirty(vm);
        }
    }

    /// Checks that both sides are known and current.
    fn is_current(&self) -> Result<(), String> {
        self.status.ready().map_err(|unready| format!("{unready}. Try again when ovn-kubevirt is ready"))?;
        let has_swept = self.swept.is_some() && self.role() == self.swept;
        if !has_swept {
            return Err("ovn-kubevirt is about to decide every VM. Try again".to_owned());
        }
        match self.northbound.silence() {
            Some(silence) if silence > self.probe_interval + BEHIND_THE_PROBE => Err(format!(
                "the northbound database has been silent for {} s. Try again when ovn-kubevirt is ready",
                silence.as_secs()
            )),
            _ => Ok(()),
        }
    }
}
