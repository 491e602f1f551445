//! Refusals of the API server, in the log: one line for each new reason, for all VMs together.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::send::Call;
use crate::contract::VmKey;
use crate::controller::kubernetes::Refusal;

/// The interval after which a reason that persists is logged again.
const AGAIN: Duration = Duration::from_secs(3_600);
/// The most reasons that are remembered. Beyond it no line is written.
const MOST: usize = 64;
/// The longest key of a reason.
const LONGEST_KEY: usize = 120;

/// The reasons that have been logged.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    logged: HashMap<(Call, Option<u16>, String), Instant>,
}

impl Complaints {
    /// Logs a refusal, unless its reason has been logged.
    pub(super) fn log(&mut self, call: Call, vm: &VmKey, refusal: &Refusal, lost: bool) {
        if self.is_new(call, refusal, Instant::now()) {
            let (call, error) = (call.name(), refusal.to_string());
            let then = if lost { "it is left out" } else { "it is tried again" };
            tracing::warn!(%vm, call, error, "the status could not be reported to the VM's owner: {}; {then}", hint(refusal));
        }
    }

    fn is_new(&mut self, call: Call, refusal: &Refusal, now: Instant) -> bool {
        let key = (call, refusal.code(), outline(&refusal.to_string()));
        if self.logged.get(&key).is_some_and(|logged| now.saturating_duration_since(*logged) < AGAIN) {
            return false;
        }
        if self.logged.len() >= MOST {
            self.logged.retain(|_, logged| now.saturating_duration_since(*logged) < AGAIN);
        }
        if self.logged.len() >= MOST {
            return false;
        }
        self.logged.insert(key, now);
        true
    }
}

/// The message without names and numbers, which differ from VM to VM.
fn outline(message: &str) -> String {
    let outside = message.split('"').step_by(2).flat_map(str::chars);
    outside.filter(|character| !character.is_ascii_digit()).take(LONGEST_KEY).collect()
}

/// The remedy, for an operator.
fn hint(refusal: &Refusal) -> &'static str {
    match refusal.code() {
        None => "the API server does not answer",
        Some(401 | 403) => {
            "the API server refuses; apply the RBAC rules of this service (deploy/kubernetes/rbac), or look at the admission webhook that is named"
        }
        Some(400 | 422) => "the API server finds the object wrong; correct it",
        Some(429) => "the API server has too much to do",
        Some(_) => "the API server could not do it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(message: &str) -> Refusal {
        let (reason, causes) = ("Forbidden".to_owned(), vec![]);
        Refusal::Status { code: 403, reason, causes, message: message.to_owned(), retry_after: None }
    }

    #[test]
    fn a_reason_is_logged_once_for_all_vms_and_again_after_an_hour() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let of =
            |vm: usize| forbidden(&format!("virtualmachines.kubevirt.io \"vm-{vm}\" is forbidden: User \"a\" may not"));
        let logged = (0..1_000).filter(|vm| complaints.is_new(Call::PatchVm, &of(*vm), now)).count();
        assert_eq!(logged, 1);
        assert!(complaints.is_new(Call::CreateEvent, &of(1), now));
        assert!(complaints.is_new(Call::PatchVm, &forbidden("admission webhook \"x\" denied the request: no"), now));
        assert!(complaints.is_new(Call::PatchVm, &of(1), now + AGAIN));
    }

    #[test]
    fn reasons_without_end_take_no_more_lines_and_memory_than_sixty_four() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let other = |index: usize| forbidden(&"x".repeat(index % 100 + 1));
        let logged = (0..1_000).filter(|index| complaints.is_new(Call::PatchVm, &other(*index), now)).count();
        assert_eq!((logged, complaints.logged.len()), (MOST, MOST));
    }
}
