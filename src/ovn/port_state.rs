//! The state of a port of ours, as its row alone tells it.

use super::requested_chassis::RequestedChassis;
use super::rows::LogicalSwitchPort;
use crate::contract::keys;

/// The state of a port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// No chassis is requested: the VM is stopped, or its chassis is not known.
    Unbound,
    /// One chassis is requested.
    Bound,
    /// Two chassis are requested: the VM migrates live.
    Moving,
    /// The VM is gone, and its addresses stay reserved.
    Retained,
}

impl PortState {
    /// All states, each at the index of its number.
    pub const ALL: [Self; 4] = [Self::Unbound, Self::Bound, Self::Moving, Self::Retained];

    /// The state of a row.
    pub fn of(row: &LogicalSwitchPort) -> Self {
        if row.external_ids.get(keys::RETAINED_UNTIL).is_some() {
            return Self::Retained;
        }
        let requested = RequestedChassis::of(&row.options);
        match requested.home {
            _ if requested.is_list() => Self::Moving,
            Some(_) => Self::Bound,
            None => Self::Unbound,
        }
    }

    /// The state as a label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Bound => "bound",
            Self::Moving => "moving",
            Self::Retained => "retained",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_requested_chassis_and_from_the_end_of_the_vm() {
        let state = |chassis: Option<&str>, retained: bool| {
            let options = chassis.map(|chassis| (keys::REQUESTED_CHASSIS, chassis)).into_iter().collect();
            let marks = retained.then_some((keys::RETAINED_UNTIL, "forever"));
            let external_ids = marks.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            PortState::of(&LogicalSwitchPort { options, external_ids, ..LogicalSwitchPort::default() })
        };
        assert_eq!(state(None, false), PortState::Unbound);
        assert_eq!(state(Some("hv1"), false), PortState::Bound);
        assert_eq!(state(Some("hv1,hv2"), false), PortState::Moving);
        assert_eq!(state(Some("hv1"), true), PortState::Retained);
        for (index, state) in PortState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
        }
    }
}
