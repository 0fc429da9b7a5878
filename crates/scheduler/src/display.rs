//! The whole state as text, for snapshots and for logs.
use crate::scheduler::{Scheduler, Step};
use crate::sequence::Sequence;
use std::fmt::{self, Display, Formatter};

impl Display for Scheduler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks {}/{} used", self.pool.num_used(), self.pool.num_blocks())?;
        for seq in &self.running {
            writeln!(f, "running {seq}")?;
        }
        for seq in &self.preempted {
            writeln!(f, "preempted {seq}")?;
        }
        for (client, served, waiting) in self.waiting.iter() {
            let list: Vec<_> = waiting.iter().map(|r| format!("{}({})", r.key, r.prompt.len())).collect();
            writeln!(f, "client {client:?} served {served} waiting [{}]", list.join(" "))?;
        }
        Ok(())
    }
}

impl Display for Sequence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (prompt, output) = (self.prompt_len, self.tokens.len() - self.prompt_len);
        write!(
            f,
            "{} prompt {prompt} output {output} computed {} blocks {:?}",
            self.id,
            self.computed,
            self.table.blocks()
        )?;
        if self.choices > 1 { write!(f, " for {} choices", self.choices) } else { Ok(()) }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for id in &self.preempted {
            writeln!(f, "preempt {id}")?;
        }
        for copy in &self.copies {
            writeln!(f, "copy #{} to #{}", copy.from.0, copy.to.0)?;
        }
        for copy in &self.state_copies {
            writeln!(f, "copy state #{} to #{}", copy.from.0, copy.to.0)?;
        }
        for c in &self.chunks {
            write!(f, "compute {} tokens {}..{}", c.seq, c.start, c.start + c.len)?;
            if !c.samples.is_empty() {
                write!(f, ", sample choices {:?}", c.samples)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
