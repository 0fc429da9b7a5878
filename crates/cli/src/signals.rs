//! SIGINT (Ctrl-C) and SIGTERM, handled from the first moment on.
//!
//! The handlers are installed before anything else happens, because process 1 of a container has no default action for
//! a signal: without a handler it would go on until it is killed. A thread of its own waits for signals, so that
//! no other work of the program, such as loading a model, delays one.
use crate::log;
use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// A request to end, from a terminal or from another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, which a terminal sends for Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The exit code of a program that a signal has ended, as shells give it: 128 and the signal's number.
    fn exit_code(self) -> i32 {
        match self {
            Signal::Interrupt => 128 + SignalKind::interrupt().as_raw_value(),
            Signal::Terminate => 128 + SignalKind::terminate().as_raw_value(),
        }
    }
}

/// The receiver that waits for the next signal, and the signals that it waits for.
#[derive(Default)]
struct Waiting {
    signals: &'static [Signal],
    sender: Option<oneshot::Sender<Signal>>,
}

/// The process's signals. A signal that nobody waits for ends the process at once.
#[derive(Clone, Default)]
pub struct Signals(Arc<Mutex<Waiting>>);

impl Signals {
    /// Installs the handlers.
    ///
    /// Errors: the system gives no thread or no handler.
    pub fn install() -> io::Result<Self> {
        let signals = Signals::default();
        let (installed, result) = mpsc::sync_channel(1);
        let thread = signals.clone();
        std::thread::Builder::new().name("tallow-signals".into()).spawn(move || thread.watch(&installed))?;
        result.recv().map_err(io::Error::other)??;
        Ok(signals)
    }

    /// Waits for one of `signals`, from this call on. It then no longer ends the process; the one after it does, unless
    /// this is called again. Only the last call waits.
    pub fn next(&self, signals: &'static [Signal]) -> oneshot::Receiver<Signal> {
        let (sender, receiver) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Waiting { signals, sender: Some(sender) };
        receiver
    }

    /// Waits for signals until the process ends.
    fn watch(&self, installed: &mpsc::SyncSender<io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let handlers = runtime.and_then(|runtime| {
            let _inside = runtime.enter();
            let handlers = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            Ok((runtime, handlers))
        });
        let (runtime, (mut interrupt, mut terminate)) = match handlers {
            Ok(handlers) => handlers,
            Err(error) => {
                let _ = installed.send(Err(error));
                return;
            }
        };
        let _ = installed.send(Ok(()));
        runtime.block_on(async {
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => Signal::Interrupt,
                    _ = terminate.recv() => Signal::Terminate,
                };
                self.raise(signal);
            }
        });
    }

    /// Tells a signal to whoever waits for it, or ends the process.
    pub fn raise(&self, signal: Signal) {
        if !self.deliver(signal) {
            log::flush();
            process::exit(signal.exit_code());
        }
    }

    /// Tells a signal to whoever waits for it. Returns false if nobody does.
    fn deliver(&self, signal: Signal) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.signals.contains(&signal) && waiting.sender.take().is_some_and(|sender| sender.send(signal).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_once_to_who_waits_for_it() {
        let signals = Signals::default();
        assert!(!signals.deliver(Signal::Terminate), "nobody waits");
        let mut receiver = signals.next(&[Signal::Interrupt]);
        assert!(!signals.deliver(Signal::Terminate), "nobody waits for this one");
        assert!(signals.deliver(Signal::Interrupt));
        assert_eq!(receiver.try_recv(), Ok(Signal::Interrupt));
        assert!(!signals.deliver(Signal::Interrupt), "the second one ends the process");
        drop(signals.next(&[Signal::Interrupt]));
        assert!(!signals.deliver(Signal::Interrupt), "who waited has gone");
    }

    /// Process 1 has no default action, so the handler must be there when `install` returns.
    #[test]
    fn both_handlers_are_installed_when_the_call_returns() {
        let caught = || {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        };
        let Some(_) = caught() else { return eprintln!("skipped: this system has no /proc/self/status") };
        Signals::install().unwrap();
        for signal in [SignalKind::interrupt(), SignalKind::terminate()] {
            let bit = 1 << (signal.as_raw_value() - 1);
            assert_ne!(caught().unwrap() & bit, 0, "{signal:?}");
        }
    }
}
