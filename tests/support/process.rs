//! Child processes that never outlive the test process, not even one that ends by SIGKILL.
//!
//! The kernel offers exactly that: the parent-death signal. `setpriv --pdeathsig KILL -- program` (util-linux) sets it
//! without a line of unsafe code here. It fires when the *thread* that spawned the child ends, and a test's thread ends
//! with its test while a shared server must go on, so one thread that lives as long as the process does every spawn.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::eventually::POLL_EVERY;

/// How long [`Daemon::stop`] waits after SIGTERM before it calls the process hung.
pub const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A command line for `program` that dies with this process; add arguments and redirections, then [`spawn`] it.
pub fn mortal(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Spawns `command` from the one thread that lives as long as this process.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();

    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    // The caller may have panicked meanwhile: then the child has no owner, and ends here.
                    if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                        let _ = orphan.kill();
                        let _ = orphan.wait();
                    }
                }
            })
            .expect("the spawner thread starts");
        requests
    });
    let (reply, child) = mpsc::channel();
    spawner.send((command, reply)).expect("the spawner thread lives as long as the process");
    child.recv().expect("the spawner thread answers every request")
}

/// A server or service under test: killed on drop, and open to every accident that a test wants to stage.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    pid: u32,
    child: Mutex<Child>,
}

impl Daemon {
    /// Starts `command`, which should come from [`mortal`]; `name` is for messages only.
    ///
    /// # Panics
    /// When the program cannot be started: a test cannot go on without its servers.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        let shown = format!("{command:?}");
        let child = spawn(command).unwrap_or_else(|error| panic!("{name} does not start: {error}\n  {shown}"));
        Self { name: name.to_owned(), pid: child.id(), child: Mutex::new(child) }
    }

    /// The process id, which is no other process's until this daemon has been seen to end.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit status, if the process has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child of this process can be waited for")
    }

    /// Whether the process has not ended (a frozen one is running too).
    pub fn is_running(&self) -> bool {
        self.status().is_none()
    }

    /// SIGKILL, and waits for the end: a crash. Has no effect on a process that has ended already.
    pub fn kill9(&self) {
        let mut child = self.child();
        child.kill().expect("a child of this process can be killed");
        child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM, and waits for the end: an orderly stop.
    ///
    /// # Panics
    /// When the process is still there after [`STOP_WITHIN`].
    pub async fn stop(&self) -> ExitStatus {
        self.signal("TERM");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(
                asked.elapsed() < STOP_WITHIN,
                "{} (pid {}) is still there {STOP_WITHIN:?} after SIGTERM",
                self.name,
                self.pid
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// SIGSTOP: the process hangs, with its sockets open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends a signal, and not to a stranger: while the lock is held no other thread waits for the child, so that its id is
    /// not free for another process.
    #[track_caller]
    fn signal(&self, signal: &str) {
        let mut child = self.child();
        if let Some(status) = child.try_wait().expect("a child of this process can be waited for") {
            panic!("{} (pid {}) has ended ({status}) and takes no SIG{signal}", self.name, self.pid);
        }
        let sent = Command::new("/bin/kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status();
        let sent = sent.expect("/bin/kill (procps) runs");
        assert!(sent.success(), "{} (pid {}) does not take SIG{signal}", self.name, self.pid);
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A holder that panicked has left the child as it is, and that is all there is to it.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // No panic here: the test may be unwinding already.
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}
