//! A worker that stands still.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::Node;

/// A thread that does nothing until this is dropped: stopped by a debugger's means, from outside.
pub struct Stalled(Pid);

impl Stalled {
    /// Stops the thread of this name.
    #[must_use]
    pub fn new(node: &Node, name: &str) -> Self {
        Self::of(node.process().pid(), name)
    }

    /// The same of any process.
    #[must_use]
    pub fn of(process: Pid, name: &str) -> Self {
        let thread = std::fs::read_dir(format!("/proc/{process}/task"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
            .unwrap();
        let thread = Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Of a process that is gone there is nothing to detach from.
        let _ = ptrace::detach(self.0, None);
    }
}
