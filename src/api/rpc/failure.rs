//! The errors of the API: a code for programs, and two sentences for people.

use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::types::error::INVALID_PARAMS_CODE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::controller::Unanswered;

/// The reason of an error, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// A parameter is unknown, missing, or cannot be read.
    InvalidParams,
    /// The data of this process is not current.
    NotReady,
    /// There is no such VM, switch, subnet or retained lease.
    NotFound,
    /// Another process writes.
    NotLeader,
    /// The order is refused: the VM exists.
    Refused,
    /// There was no commit and no answer in time.
    TimedOut,
    /// There are as many subscriptions as are allowed.
    TooMany,
    /// The subscriber takes its messages too slowly, and the subscription ends.
    TooSlow,
}

impl Reason {
    /// All of them, with their codes.
    pub const ALL: [Self; 8] = [
        Self::InvalidParams,
        Self::NotReady,
        Self::NotFound,
        Self::NotLeader,
        Self::Refused,
        Self::TimedOut,
        Self::TooMany,
        Self::TooSlow,
    ];

    /// The meaning, in a sentence.
    pub fn summary(self) -> &'static str {
        match self {
            Self::InvalidParams => "A parameter is unknown, missing, or cannot be read.",
            Self::NotReady => "The data of this process is not current.",
            Self::NotFound => "There is no such VM, switch, subnet or retained lease.",
            Self::NotLeader => "Another process writes.",
            Self::Refused => "The order is refused: the VM exists, or its ports are not retained.",
            Self::TimedOut => "There was no commit and no answer in time.",
            Self::TooMany => "There are as many subscriptions or calls as are allowed.",
            Self::TooSlow => "The subscriber takes its messages too slowly, and the subscription ends.",
        }
    }

    /// The code. Those of our own are positive, and leave the negative ones to JSON-RPC and its library.
    pub fn code(self) -> i32 {
        match self {
            Self::InvalidParams => INVALID_PARAMS_CODE,
            Self::NotReady => 1,
            Self::NotFound => 2,
            Self::NotLeader => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            Self::TooMany => 6,
            Self::TooSlow => 7,
        }
    }
}

/// An error of a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The reason, for programs.
    pub reason: Reason,
    /// The fault and the way out, for people.
    pub message: String,
    /// The process that leads, if another one should be asked.
    pub leader: Option<String>,
}

/// The member `data` of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureData {
    /// The reason, for programs.
    pub reason: Reason,
    /// The process that leads, where another one should be asked and is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leader: Option<String>,
}

impl Failure {
    /// An error without a leader.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), leader: None }
    }

    /// The object of this name does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Reason::NotFound, message)
    }

    /// A parameter has no meaning.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidParams, message)
    }
}

impl From<Failure> for ErrorObjectOwned {
    fn from(Failure { reason, message, leader }: Failure) -> Self {
        Self::owned(reason.code(), message, Some(FailureData { reason, leader }))
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotCurrent(reason) => Self::new(Reason::NotReady, reason),
            Unanswered::NotYet(missing) => Self::new(Reason::TimedOut, missing),
        }
    }
}
