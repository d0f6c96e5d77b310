//! The logs of sessions and alerts. Workers push records into a queue each, of fixed size; one thread on a control CPU gives them
//! their names and appends them to the files of `[log]` as lines of JSON. What a slow or full disk cannot take is lost and
//! counted; no worker ever waits for it.

pub mod file;
mod line;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_queue::ArrayQueue;
use tracing::{info, warn};

use super::view::Names;
use crate::base::{Generation, Nanos, WorkerId};
use crate::config;
use crate::engine::{Event, Record};
use crate::policy::SessionScope;
use file::{LogFile, Written};
use line::Reader;

/// Records on their way from a worker.
pub type RecordQueue = ArrayQueue<Record>;

/// Records that a worker's queue holds: at a million a second it bridges three times [`POLL`].
pub const QUEUE: usize = 65_536;
/// Records that wait within the worker's engine, until its turn ends.
pub const WAITING: usize = 4096;

/// The queues are looked at so often.
const POLL: Duration = Duration::from_millis(20);
/// Whether the files still have their names, if nothing is written: a deleted file keeps its disk space while it is open.
const LOOK: Duration = Duration::from_secs(1);
/// The same trouble is told so often.
const WARN: Duration = Duration::from_secs(60);
/// Generations whose names are kept. (Each is given up when no record of it can come any more; a worker that does not answer
/// may keep them from being given up.)
const GENERATIONS: usize = 64;

/// The two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sessions = 0,
    Alerts = 1,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Sessions, Self::Alerts];

    const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "session log",
            Self::Alerts => "alert log",
        }
    }

    const fn of(record: &Record) -> Self {
        match record.event {
            Event::Start(_) | Event::End(..) => Self::Sessions,
            Event::Alert(_) => Self::Alerts,
        }
    }
}

/// Why a log cannot be written, in one line with the fix.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the {what} {path}: {error}: {fix}")]
pub struct OpenError {
    what: &'static str,
    path: String,
    error: io::Error,
    fix: String,
}

/// The files of `[log]`, open.
#[derive(Debug)]
pub struct LogFiles([Option<LogFile>; 2]);

impl LogFiles {
    /// Opens them; `None`: there are none.
    ///
    /// # Errors
    /// The file that cannot be opened, with what to do about it.
    pub fn open(log: &config::Log) -> Result<Option<Self>, OpenError> {
        let open = |kind: Kind, path: &Option<std::path::PathBuf>| {
            let open = |path: &Path| {
                LogFile::open(path).map_err(|error| OpenError {
                    what: kind.name(),
                    path: path.display().to_string(),
                    fix: fix(path, &error),
                    error,
                })
            };
            path.as_deref().map(open).transpose()
        };
        let files = [
            open(Kind::Sessions, &log.sessions)?,
            open(Kind::Alerts, &log.alerts)?,
        ];
        Ok(files.iter().any(Option::is_some).then_some(Self(files)))
    }

    /// Is there one for alerts?
    #[must_use]
    pub fn has_alerts(&self) -> bool {
        self.0[Kind::Alerts as usize].is_some()
    }
}

fn fix(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("make its directory with `mkdir -p {directory}`"),
        io::ErrorKind::PermissionDenied => {
            format!("let the user that runs haechi write in {directory}, or change `[log]`")
        }
        _ => "change `[log]`, or what is there".to_owned(),
    }
}

/// What the logs' thread and others tell each other.
#[derive(Debug, Default)]
struct Health {
    /// The thread is to write what there is, and to end.
    finish: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
    /// The system's error number of what keeps each from being written; 0: nothing.
    error: [AtomicI32; 2],
}

enum Message {
    /// The names of a generation, before the first record of it.
    Names(Generation, Arc<Names>),
    /// All workers have gone over to this generation.
    Retire(Generation),
    /// Look at [`Health::finish`].
    Wake,
}

/// The logs of a running node.
#[derive(Debug)]
pub struct EventLog {
    messages: SyncSender<Message>,
    ended: Receiver<()>,
    reports: Reports,
}

/// What is known of the logs.
#[derive(Clone, Debug)]
pub struct Reports {
    paths: [String; 2],
    health: Arc<Health>,
    messages: SyncSender<Message>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Names(..) => "Names",
            Self::Retire(_) => "Retire",
            Self::Wake => "Wake",
        })
    }
}

/// What the logs are written of.
pub struct Source {
    /// A queue for each worker, by its id.
    pub queues: Vec<Arc<RecordQueue>>,
    /// The workers' clock.
    pub clock: Box<dyn Fn() -> Nanos + Send>,
    /// The names of the policy that the workers begin with.
    pub names: Arc<Names>,
    /// That policy.
    pub generation: Generation,
    /// What tells sessions apart.
    pub scope: SessionScope,
}

impl EventLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(files: LogFiles, source: Source) -> io::Result<Self> {
        let (messages, received) = mpsc::sync_channel(GENERATIONS);
        let (ending, ended) = mpsc::channel();
        let health = Arc::new(Health::default());
        let paths = std::array::from_fn(|i| {
            let file = files.0[i].as_ref();
            file.map_or_else(String::new, |file| file.path().display().to_string())
        });
        let mut writer = Writer {
            files: files.0,
            queues: source.queues,
            clock: source.clock,
            scope: source.scope,
            epoch_ns: 0,
            current: (source.generation, Arc::clone(&source.names)),
            names: BTreeMap::from([(source.generation.0, source.names)]),
            retired: Generation(0),
            orphaned: false,
            messages: received,
            health: Arc::clone(&health),
            trouble: [Trouble::default(); 2],
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                writer.run();
                drop(ending);
            })?;
        Ok(Self {
            reports: Reports {
                paths,
                health,
                messages: messages.clone(),
            },
            messages,
            ended,
        })
    }

    /// What is known of the logs, for others to read.
    #[must_use]
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Writes what the queues hold and closes the files. False: that takes longer than `within`, and goes on.
    #[must_use]
    pub fn finish(&self, within: Duration) -> bool {
        self.reports.health.finish.store(true, Ordering::Release);
        // With messages waiting it is awake.
        let _ = self.messages.try_send(Message::Wake);
        self.ended.recv_timeout(within) != Err(RecvTimeoutError::Timeout)
    }
}

impl Reports {
    /// Makes the names of a policy known, before any worker is given it.
    pub fn names(&self, generation: Generation, names: Arc<Names>) {
        // A thread that a dead disk holds up for so many applies uses the next newer names when it lives again.
        let _ = self.messages.try_send(Message::Names(generation, names));
    }

    /// All workers have gone over to this policy: the names of older ones may go when their last records are written.
    pub fn retire(&self, generation: Generation) {
        let _ = self.messages.try_send(Message::Retire(generation));
    }

    /// Lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.health.written.load(Ordering::Relaxed)
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.health.lost.load(Ordering::Relaxed)
    }

    /// What keeps the logs from being written now, a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let failing = Kind::ALL.into_iter().filter_map(|kind| {
            let error = self.health.error[kind as usize].load(Ordering::Relaxed);
            (error != 0).then(|| {
                let (path, error) = (&self.paths[kind as usize], io::Error::from_raw_os_error(error));
                format!("{} {path}: {error}: records are lost", kind.name())
            })
        });
        failing.collect()
    }
}

/// What went wrong with a file, and when that was told.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Lines lost since it began.
    lost: u64,
    told: Option<Instant>,
    failing: bool,
    /// There is no file of the name, and none can be made.
    gone: bool,
}

struct Writer {
    files: [Option<LogFile>; 2],
    queues: Vec<Arc<RecordQueue>>,
    clock: Box<dyn Fn() -> Nanos + Send>,
    scope: SessionScope,
    epoch_ns: i128,
    /// The names of the record last written.
    current: (Generation, Arc<Names>),
    names: BTreeMap<u32, Arc<Names>>,
    retired: Generation,
    /// Nobody is left who could say that it is to end.
    orphaned: bool,
    messages: Receiver<Message>,
    health: Arc<Health>,
    trouble: [Trouble; 2],
}

#[allow(clippy::disallowed_methods, reason = "a control thread's clocks")]
impl Writer {
    fn run(&mut self) {
        let mut looked = Instant::now();
        loop {
            // Read before the queues are: what was pushed before the end was asked for is written.
            let finish = self.orphaned || self.health.finish.load(Ordering::Acquire);
            let taken = self.drain();
            if taken == 0 {
                if finish {
                    return;
                }
                self.forget();
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look();
            }
            let wait = if finish { Duration::ZERO } else { POLL };
            match self.messages.recv_timeout(wait) {
                Ok(message) => {
                    self.take(message);
                    self.take_all();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.orphaned = true,
            }
        }
    }

    fn take_all(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Names(generation, names) => {
                self.names.insert(generation.0, names);
                while self.names.len() > GENERATIONS {
                    self.names.pop_first();
                }
            }
            Message::Retire(generation) => self.retired = generation,
            Message::Wake => {}
        }
    }

    /// Takes what was in the queues when it began, and writes it. Returns how many records that were.
    fn drain(&mut self) -> usize {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = i128::try_from(unix.as_nanos()).unwrap_or(0);
        self.epoch_ns = unix - i128::from((self.clock)().0);
        let mut taken = 0;
        for (place, worker) in (0..self.queues.len()).zip((0..).map(WorkerId)) {
            let queue = Arc::clone(&self.queues[place]);
            // Not longer, so that no worker keeps the thread from the others' records.
            for _ in 0..queue.capacity() {
                let Some(record) = queue.pop() else { break };
                self.write(worker, &record);
                taken += 1;
            }
        }
        Kind::ALL.into_iter().for_each(|kind| self.flush(kind));
        taken
    }

    fn write(&mut self, worker: WorkerId, record: &Record) {
        if record.generation != self.current.0 {
            self.turn_to(record.generation);
        }
        let kind = Kind::of(record);
        let Some(file) = &mut self.files[kind as usize] else {
            // The configuration has a file for every rule that logs.
            self.health.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let reader = Reader {
            names: &self.current.1,
            scope: self.scope,
            epoch_ns: self.epoch_ns,
            worker,
        };
        if file.line(|to| reader.write(record, to)) {
            self.flush(kind);
        }
    }

    #[cold]
    fn turn_to(&mut self, generation: Generation) {
        self.take_all();
        // Names that were given up too early: the next newer ones are the nearest.
        let names = self.names.range(generation.0..).next();
        if let Some((_, names)) = names.or_else(|| self.names.last_key_value()) {
            self.current = (generation, Arc::clone(names));
        }
    }

    /// Gives up the names that no record can have any more: the queues are empty, and what had waited within an engine has
    /// had the time to come.
    fn forget(&mut self) {
        let retired = self.retired.0;
        self.names.retain(|generation, _| *generation >= retired);
    }

    fn look(&mut self) {
        for kind in Kind::ALL {
            let gone = match self.files[kind as usize].as_mut().map(LogFile::follow) {
                Some(Err(e)) => {
                    self.failed(kind, 0, &e);
                    true
                }
                _ => false,
            };
            if std::mem::replace(&mut self.trouble[kind as usize].gone, gone) && !gone {
                self.works(kind);
            }
        }
    }

    fn flush(&mut self, kind: Kind) {
        let Some(file) = &mut self.files[kind as usize] else {
            return;
        };
        let Written { lines, lost, error } = file.flush();
        self.health.written.fetch_add(lines, Ordering::Relaxed);
        self.health.lost.fetch_add(lost, Ordering::Relaxed);
        match error {
            Some(e) => self.failed(kind, lost, &e),
            None if lines > 0 => self.works(kind),
            None => {}
        }
    }

    fn failed(&mut self, kind: Kind, lost: u64, error: &io::Error) {
        let errno = error
            .raw_os_error()
            .unwrap_or(rustix::io::Errno::IO.raw_os_error());
        self.health.error[kind as usize].store(errno, Ordering::Relaxed);
        let trouble = &mut self.trouble[kind as usize];
        trouble.failing = true;
        trouble.lost += lost;
        if trouble.told.is_none_or(|told| told.elapsed() >= WARN) {
            trouble.told = Some(Instant::now());
            if let Some(file) = &self.files[kind as usize] {
                let (what, path) = (kind.name(), file.path().display());
                warn!(
                    "{what} {path}: {error}: {} records lost so far, and more until it can be written again",
                    trouble.lost
                );
            }
        }
    }

    fn works(&mut self, kind: Kind) {
        let trouble = &mut self.trouble[kind as usize];
        if !trouble.failing {
            return;
        }
        self.health.error[kind as usize].store(0, Ordering::Relaxed);
        let lost = std::mem::take(&mut trouble.lost);
        trouble.failing = false;
        if let Some(file) = &self.files[kind as usize] {
            info!(
                "{} {}: written again, after {lost} lost records",
                kind.name(),
                file.path().display()
            );
        }
    }
}
