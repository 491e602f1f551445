//! Several candidates on one Lease: a store with optimistic concurrency, messages that are late or lost, clocks with
//! different starts and rates, and a script of incidents.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::election::{Candidacy, Election, Failure, Leadership, Moment, Purpose, Request};
use super::super::object::Lease;
use super::super::timing::LeaseTiming;

/// Microseconds of the true time, which no candidate knows.
type Time = u64;

const SECOND: Time = 1_000_000;
const LEASE: Time = 15 * SECOND;

/// In thousandths: the proportions allow for clocks whose rates differ by less than half.
const SLOWEST: u64 = 820;
const FASTEST: u64 = 1_220;

/// An incident.
#[derive(Debug, Clone)]
enum Turn {
    /// A candidate stands, or no longer stands.
    Stands(usize, bool),
    /// A candidate is killed, and another takes its place.
    Killed(usize),
    /// A candidate is stopped, and another takes its place when it has ended.
    Stopped(usize),
    /// The messages of a candidate are lost in both directions, or no longer lost.
    CutOff(usize, bool),
    /// Its watch hangs without an error.
    WatchHangs(usize, bool),
    /// Its watch breaks.
    WatchBreaks(usize),
    /// The greatest delay of messages, and the percentage that is lost.
    Network(Time, u64),
    /// Another client edits the Lease.
    Meddled(Meddling),
}

#[derive(Debug, Clone)]
enum Meddling {
    Deleted,
    Emptied,
    Held(String, Option<i64>),
    Transitions(i64),
    Labelled,
}

struct Candidate {
    election: Election,
    name: String,
    candidacy: Candidacy,
    /// Own time: `offset + time * rate / 1000`.
    rate: u64,
    offset: Time,
    cut_off: bool,
    watch_hangs: bool,
    /// The request that waits for its answer.
    waits_for: Option<u64>,
    /// The newest version that its watch has reported: it reports them in order.
    reported: u64,
    wake: u64,
    failures: u32,
}

impl Candidate {
    fn now(&self, time: Time) -> Moment {
        Duration::from_micros(self.offset + time * self.rate / 1_000)
    }

    /// The first moment at which its clock shows this time.
    fn time_of(&self, moment: Moment) -> Time {
        let own = u64::try_from(moment.as_nanos().div_ceil(1_000)).expect("a time").saturating_sub(self.offset);
        (own * 1_000).div_ceil(self.rate) + 1
    }
}

#[derive(Debug)]
enum Event {
    Turn(Turn),
    /// Only the latest one that was requested counts.
    Wake(String, u64),
    Arrives {
        from: String,
        id: u64,
        request: Request,
    },
    Answered {
        to: String,
        id: u64,
        answer: Answer,
    },
    TimedOut {
        to: String,
        id: u64,
    },
    Watched {
        to: String,
        version: u64,
        lease: Option<Lease>,
    },
}

#[derive(Debug)]
enum Answer {
    Read(Option<Lease>),
    Written(Lease),
    Conflict,
}

struct World {
    time: Time,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    random: u64,
    stored: Option<Lease>,
    version: u64,
    candidates: Vec<Candidate>,
    delay: Time,
    loss: u64,
    /// Each term with its leader.
    terms: Vec<(u64, String)>,
    /// The leaders at the last check.
    leading: Vec<(String, u64)>,
    meddled: bool,
}

impl World {
    fn new(rates: &[u64], seed: u64, meddled: bool) -> Self {
        let mut world = Self {
            time: 0,
            events: BTreeMap::new(),
            sequence: 0,
            random: seed | 1,
            stored: None,
            version: 0,
            candidates: Vec::new(),
            delay: SECOND / 100,
            loss: 0,
            terms: Vec::new(),
            leading: Vec::new(),
            meddled,
        };
        for (index, rate) in rates.iter().enumerate() {
            let candidate = world.candidate(index, *rate);
            world.candidates.push(candidate);
        }
        world
    }

    fn candidate(&mut self, index: usize, rate: u64) -> Candidate {
        let name = format!("candidate-{index}-{}", self.draw(1 << 40));
        let offset = self.draw(1_000 * SECOND);
        self.schedule(0, Event::Wake(name.clone(), 0));
        Candidate {
            election: Election::new(name.clone(), LeaseTiming::default()),
            name,
            candidacy: Candidacy { stands: true, stopping: false },
            rate,
            offset,
            cut_off: false,
            watch_hangs: false,
            waits_for: None,
            reported: 0,
            wake: 0,
            failures: 0,
        }
    }

    /// A number below `bound` (xorshift64*).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    fn schedule(&mut self, delay: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((self.time + delay, self.sequence), event);
    }

    /// The delay of a message; `None` if it is lost.
    fn transit(&mut self) -> Option<Time> {
        let loss = self.loss;
        (self.draw(100) >= loss).then(|| self.delay())
    }

    /// Half of the messages are fast.
    fn delay(&mut self) -> Time {
        let most = if self.draw(2) == 0 { self.delay.min(SECOND / 100) } else { self.delay };
        self.draw(most + 1)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.name == name)
    }

    fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((time, _), event) = entry.remove_entry();
            self.time = time;
            self.handle(event);
            self.check();
        }
        self.time = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn(turn) => self.turn(turn),
            Event::Wake(name, wake) => match self.find(&name) {
                Some(index) if self.candidates[index].wake == wake => self.step(index),
                _ => {}
            },
            Event::Arrives { from, id, request } => self.arrives(from, id, request),
            Event::Answered { to, id, answer } => self.answered(&to, id, Some(answer)),
            Event::TimedOut { to, id } => self.answered(&to, id, None),
            Event::Watched { to, version, lease } => {
                let Some(index) = self.find(&to) else { return };
                let now = self.candidates[index].now(self.time);
                let candidate = &mut self.candidates[index];
                if candidate.cut_off || candidate.watch_hangs || version < candidate.reported {
                    return;
                }
                candidate.reported = version;
                candidate.election.watched(now, lease);
                self.step(index);
            }
        }
    }

    fn turn(&mut self, turn: Turn) {
        let count = self.candidates.len();
        match turn {
            Turn::Stands(index, stands) => {
                self.candidates[index % count].candidacy.stands = stands;
                self.step(index % count);
            }
            Turn::Killed(index) => self.replace(index % count),
            Turn::Stopped(index) => {
                self.candidates[index % count].candidacy.stopping = true;
                self.step(index % count);
            }
            Turn::CutOff(index, cut_off) => self.candidates[index % count].cut_off = cut_off,
            Turn::WatchHangs(index, hangs) => self.candidates[index % count].watch_hangs = hangs,
            Turn::WatchBreaks(index) => {
                self.candidates[index % count].election.watch_broke();
                self.step(index % count);
            }
            Turn::Network(delay, loss) => (self.delay, self.loss) = (delay, loss),
            Turn::Meddled(meddling) => self.meddle(meddling),
        }
    }

    fn replace(&mut self, index: usize) {
        let rate = self.candidates[index].rate;
        self.candidates[index] = self.candidate(index, rate);
    }

    /// Advances a candidate and sends its request.
    fn step(&mut self, index: usize) {
        let time = self.time;
        let candidate = &mut self.candidates[index];
        let step = candidate.election.next(candidate.now(time), candidate.candidacy);
        if candidate.candidacy.stopping && candidate.election.is_released() {
            return self.replace(index);
        }
        let (name, cut_off) = (candidate.name.clone(), candidate.cut_off);
        let wake = step.wake.map(|moment| candidate.time_of(moment));
        if let Some(request) = step.request {
            self.sequence += 1;
            let id = self.sequence;
            self.candidates[index].waits_for = Some(id);
            let limit = self.candidates[index].now(time) + LeaseTiming::default().request_timeout();
            let limit = self.candidates[index].time_of(limit).saturating_sub(time);
            self.schedule(limit, Event::TimedOut { to: name.clone(), id });
            if let Some(delay) = self.transit().filter(|_| !cut_off) {
                self.schedule(delay, Event::Arrives { from: name.clone(), id, request });
            }
        }
        let candidate = &mut self.candidates[index];
        candidate.wake += 1;
        let token = candidate.wake;
        if let Some(wake) = wake {
            self.schedule(wake.saturating_sub(time), Event::Wake(name, token));
        }
    }

    /// The API server carries out a request, even if its sender no longer waits.
    fn arrives(&mut self, from: String, id: u64, request: Request) {
        let answer = match request {
            Request::Read => Answer::Read(self.stored.clone()),
            Request::Write(purpose, lease) => self.write(purpose, *lease),
        };
        let cut_off = self.find(&from).is_some_and(|index| self.candidates[index].cut_off);
        if let Some(delay) = self.transit().filter(|_| !cut_off) {
            self.schedule(delay, Event::Answered { to: from, id, answer });
        }
    }

    fn write(&mut self, purpose: Purpose, mut lease: Lease) -> Answer {
        let present = self.stored.as_ref().and_then(|stored| stored.metadata.resource_version.clone());
        if present != lease.metadata.resource_version {
            return Answer::Conflict;
        }
        if purpose == Purpose::Release {
            assert_eq!(lease.holder(), None);
        }
        lease.spec.renew_time = Some(format!("{}", self.sequence));
        self.store(Some(lease));
        Answer::Written(self.stored.clone().expect("a stored Lease"))
    }

    fn store(&mut self, lease: Option<Lease>) {
        self.version += 1;
        self.stored = lease.map(|mut lease| {
            lease.metadata.resource_version = Some(self.version.to_string());
            lease
        });
        for index in 0..self.candidates.len() {
            let (to, version, lease) = (self.candidates[index].name.clone(), self.version, self.stored.clone());
            // A watch is late, but loses no event.
            let delay = self.delay();
            self.schedule(delay, Event::Watched { to, version, lease });
        }
    }

    fn meddle(&mut self, meddling: Meddling) {
        let Some(mut lease) = self.stored.clone() else { return };
        match meddling {
            Meddling::Deleted => return self.store(None),
            Meddling::Emptied => lease.spec = Default::default(),
            Meddling::Held(holder, seconds) => {
                lease.spec.holder_identity = Some(holder);
                lease.spec.lease_duration_seconds = seconds;
            }
            Meddling::Transitions(transitions) => lease.spec.lease_transitions = Some(transitions),
            Meddling::Labelled => {
                let labels = lease.metadata.labels.get_or_insert_default();
                labels.insert("at".to_owned(), self.time.to_string());
            }
        }
        self.store(Some(lease));
    }

    fn answered(&mut self, to: &str, id: u64, answer: Option<Answer>) {
        let time = self.time;
        let Some(index) = self.find(to) else { return };
        let candidate = &mut self.candidates[index];
        if candidate.waits_for != Some(id) || (answer.is_some() && candidate.cut_off) {
            return;
        }
        candidate.waits_for = None;
        let now = candidate.now(time);
        let pause = Duration::from_millis(100 << candidate.failures.min(4));
        candidate.failures += 1;
        match answer {
            Some(Answer::Read(lease)) => {
                if candidate.election.read(now, lease) {
                    candidate.failures = 0;
                }
            }
            Some(Answer::Written(lease)) => {
                candidate.election.written(now, lease);
                candidate.failures = 0;
            }
            Some(Answer::Conflict) => candidate.election.failed(now, Failure::Conflict, pause),
            None => candidate.election.failed(now, Failure::Unknown, pause),
        }
        self.step(index);
    }

    fn leading(&self) -> Vec<(String, u64)> {
        let leading = |candidate: &Candidate| match candidate.election.leadership() {
            Leadership::Leader { transitions } => Some((candidate.name.clone(), transitions)),
            Leadership::Follower { .. } => None,
        };
        self.candidates.iter().filter_map(leading).collect()
    }

    /// Never two leaders at one time, and each term is greater than all before.
    fn check(&mut self) {
        let leading = self.leading();
        for (name, term) in &leading {
            if self.leading.contains(&(name.clone(), *term)) {
                continue;
            }
            if !self.meddled {
                let greatest = self.terms.iter().map(|(term, _)| *term).max().unwrap_or(0);
                assert!(*term > greatest, "{name} begins term {term} after {:?}", self.terms);
            }
            self.terms.push((*term, name.clone()));
        }
        if !self.meddled {
            assert!(leading.len() <= 1, "at {}: {leading:?}", self.time);
        }
        self.leading = leading;
    }

    /// After any history, once the network is good again a leader appears in time and stays.
    fn settles(&mut self) {
        (self.delay, self.loss) = (SECOND / 100, 0);
        for candidate in &mut self.candidates {
            (candidate.cut_off, candidate.watch_hangs, candidate.candidacy.stands) = (false, false, true);
        }
        for index in 0..self.candidates.len() {
            self.step(index);
        }
        // Messages on their way may still give the Lease to a candidate that learns it only by the next retry.
        let late = self.events.keys().map(|(time, _)| *time).max().unwrap_or(self.time).max(self.time);
        // By the slowest clock.
        self.run_until(late + 2 * LEASE * 1_000 / SLOWEST);
        let leading = self.leading();
        assert_eq!(leading.len(), 1, "{leading:?}, {:?}", self.stored);
        let terms = self.terms.len();
        self.run_until(self.time + 20 * LEASE);
        assert_eq!((self.leading(), self.terms.len()), (leading, terms), "the leader stays");
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    let who = 0..4_usize;
    prop_oneof![
        3 => (who.clone(), any::<bool>()).prop_map(|(who, stands)| Turn::Stands(who, stands)),
        3 => who.clone().prop_map(Turn::Killed),
        3 => who.clone().prop_map(Turn::Stopped),
        4 => (who.clone(), any::<bool>()).prop_map(|(who, cut)| Turn::CutOff(who, cut)),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, hangs)| Turn::WatchHangs(who, hangs)),
        1 => who.prop_map(Turn::WatchBreaks),
        4 => (0..30 * SECOND, 0..60_u64).prop_map(|(delay, loss)| Turn::Network(delay, loss)),
        1 => Just(Turn::Meddled(Meddling::Labelled)),
    ]
}

fn meddling() -> impl Strategy<Value = Turn> {
    let seconds = prop_oneof![Just(None), Just(Some(-1)), Just(Some(1)), Just(Some(i64::from(i32::MAX)))];
    let transitions = prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(i64::from(i32::MAX)), Just(i64::MAX)];
    prop_oneof![
        Just(Meddling::Deleted),
        Just(Meddling::Emptied),
        ("[ab]?", seconds).prop_map(|(holder, seconds)| Meddling::Held(holder, seconds)),
        transitions.prop_map(Meddling::Transitions),
    ]
    .prop_map(Turn::Meddled)
}

fn script(turn: impl Strategy<Value = Turn>) -> impl Strategy<Value = Vec<(Time, Turn)>> {
    proptest::collection::vec((0..40 * SECOND, turn), 0..25)
}

fn rates() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(prop_oneof![Just(SLOWEST), Just(FASTEST), SLOWEST..FASTEST], 1..4)
}

fn play(rates: &[u64], seed: u64, script: &[(Time, Turn)], meddled: bool) {
    let mut world = World::new(rates, seed, meddled);
    let mut time = 0;
    for (pause, turn) in script {
        time += pause;
        world.run_until(time);
        world.schedule(0, Event::Turn(turn.clone()));
    }
    world.run_until(time + SECOND);
    world.settles();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn never_two_lead_terms_increase_and_a_leader_appears(
        rates in rates(), seed in any::<u64>(), script in script(turn()),
    ) {
        play(&rates, seed, &script, false);
    }

    #[test]
    fn a_leader_appears_after_any_edits_of_the_lease(
        rates in rates(), seed in any::<u64>(), script in script(prop_oneof![turn(), meddling()]),
    ) {
        play(&rates, seed, &script, true);
    }
}

#[test]
fn the_next_leader_comes_within_two_leases_after_a_kill_and_at_once_after_a_clean_end() {
    for (turn, limit) in [(Turn::Killed as fn(usize) -> Turn, 2 * LEASE), (Turn::Stopped, SECOND / 2)] {
        for seed in 0..50 {
            let mut world = World::new(&[1_000, 1_000, 1_000], seed, false);
            world.run_until(LEASE + seed * SECOND / 7);
            let (name, term) = world.leading().pop().expect("a leader");
            let leader = world.find(&name).expect("it");
            world.schedule(0, Event::Turn(turn(leader)));
            world.run_until(world.time + limit);
            let next = world.leading();
            assert!(next.len() == 1 && next[0].1 == term + 1, "seed {seed}: {next:?} after {term}");
        }
    }
}
