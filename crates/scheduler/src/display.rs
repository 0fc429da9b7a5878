//! The whole state as text, for snapshots and for logs.
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::step::Step;
use std::fmt::{self, Display, Formatter};

impl Display for Scheduler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (held, cached, all) = (self.pool.num_held(), self.pool.num_cached(), self.pool.num_blocks());
        writeln!(f, "blocks {held}/{all} held, {cached} cached")?;
        if self.snapshots.capacity() > 0 {
            writeln!(f, "snapshots {}/{}", self.snapshots.len(), self.snapshots.capacity())?;
        }
        for seq in &self.running {
            writeln!(f, "running {seq}")?;
        }
        for seq in &self.preempted {
            writeln!(f, "preempted {seq}")?;
        }
        for (client, served, waiting) in self.waiting.iter() {
            let list: Vec<_> = waiting.iter().map(|r| format!("{}({})", r.id.request, r.prompt_len)).collect();
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
        if self.load.is_some() {
            write!(f, ", loading")?;
        }
        if self.choices > 1 { write!(f, " for {} choices", self.choices) } else { Ok(()) }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for id in &self.preempted {
            writeln!(f, "preempt {id}")?;
        }
        for eviction in &self.evictions {
            writeln!(f, "evict #{}", eviction.evicted.block.0)?;
        }
        for load in &self.loads {
            writeln!(f, "load {} blocks for {}", load.keys.len(), load.seq)?;
        }
        for copy in &self.copies {
            writeln!(f, "copy #{} to #{}", copy.from.0, copy.to.0)?;
        }
        for copy in &self.state_copies {
            writeln!(f, "copy state #{} to #{}", copy.from.0, copy.to.0)?;
        }
        for c in &self.chunks {
            write!(f, "compute {} tokens {}..{}", c.seq, c.start, c.start + c.len)?;
            if !c.draft.is_empty() {
                write!(f, ", the last {} drafted", c.draft.len())?;
            }
            if !c.samples.is_empty() {
                write!(f, ", sample choices {:?}", c.samples)?;
            }
            writeln!(f)?;
        }
        for copy in &self.snapshots {
            writeln!(f, "snapshot state #{} as #{}", copy.from.0, copy.to.0)?;
        }
        Ok(())
    }
}
