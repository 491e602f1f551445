//! (types only; replaced by the whole module)
/// Candidacy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidacy {
    /// The database can be written from here.
    pub stands: bool,
    /// The process is about to end.
    pub stopping: bool,
}
/// What the Lease says of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Not us.
    Follower {
        /// Who, if anybody.
        leader: Option<String>,
    },
    /// Us.
    Leader {
        /// Which term.
        transitions: u64,
    },
}
