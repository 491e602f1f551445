//! The abilities of the present OVN: logged once. Every VM is decided again when an upgrade changes them.

use super::Writer;
use crate::controller::link::Link;
use crate::ovn::Multichassis;

impl Writer {
    /// Records the schemas' abilities. After a conversion every VM is decided again: migrating ports gain or lose the
    /// second chassis.
    pub(super) fn note_multichassis(&mut self) {
        let Some(present) = self.present_multichassis() else { return };
        let Some(before) = self.multichassis.replace(present) else {
            self.tell_multichassis(present);
            return;
        };
        if before != present {
            self.tell_multichassis(present);
            self.swept = None;
        }
    }

    /// `None` before the relevant database has been reached.
    fn present_multichassis(&self) -> Option<Multichassis> {
        match &self.southbound {
            Some(feed) => feed.in_sync.borrow().map(|_| feed.replica.read().multichassis()),
            None => {
                let connected = matches!(&*self.link.borrow(), Link::Following | Link::Up(_));
                connected.then(|| self.northbound.read().multichassis())
            }
        }
    }

    fn tell_multichassis(&self, present: Multichassis) {
        if present >= self.settings.strategy.needs() {
            tracing::debug!(?present, "a port that migrates may have two chassis");
            return;
        }
        let schema = self.northbound.read().schema_version().to_owned();
        if present == Multichassis::List && self.southbound.is_none() {
            tracing::warn!(
                schema,
                "the northbound schema is of OVN 22.06 and 22.09 alike, and activation-strategy came with 22.09: a port \
                 that migrates has one chassis at a time. Name the southbound with --sb to tell them apart, or upgrade \
                 ovn-central to OVN 22.12"
            );
        } else {
            tracing::warn!(
                schema,
                "this OVN is older than 22.09 and has no activation-strategy for a second chassis: a port that migrates \
                 has one chassis at a time, and follows the guest when it is ready. Upgrade ovn-central to OVN 22.09 or \
                 newer"
            );
        }
    }
}
