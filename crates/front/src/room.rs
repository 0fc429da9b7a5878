//! Whether there is memory for a model, and what must be unloaded for it.
use futures_util::future::BoxFuture;

/// A context that is enough not to unload another model for a longer one, tokens.
const ENOUGH_CONTEXT: usize = 8192;

/// The memory that a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes in all.
    pub total: u64,
    /// Bytes beside the cache.
    pub beside_cache: u64,
    /// The longest context, tokens.
    pub context: usize,
}

/// The source of how much memory there is, and how much models take.
pub trait Planner: Send + Sync + 'static {
    /// The bytes that models may take as things are, those included that the user has named for all of them; `None`
    /// where the system does not say. The call may block.
    fn free(&self) -> Option<u64>;

    /// Returns the memory that the model with this number would take if `free` bytes are free. `is_alone`: no other
    /// model is loaded.
    ///
    /// Errors: why the model cannot be loaded then, with the numbers.
    fn plan(&self, model: usize, free: u64, is_alone: bool) -> BoxFuture<'_, Result<MemoryPlan, String>>;
}

/// A question about memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomQuestion {
    /// The number of the model that is to be loaded.
    pub model: usize,
    /// The memory that was free when no model was loaded; `None` if none is now.
    pub free_of_models: Option<u64>,
    /// Bytes of all processes that there are.
    pub taken: u64,
    /// Bytes of those that may be unloaded, in the order in which they would be.
    pub unloadable: Vec<u64>,
    /// Bytes that the other models need beside their caches, which had better be left for them.
    pub reserve: u64,
}

/// Where a model has its memory from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomVerdict {
    /// It fits once so many of the unloadable ones are unloaded.
    Fits {
        /// How many.
        unloaded: usize,
        /// The memory that the model takes.
        plan: MemoryPlan,
    },
    /// It fits once others can be unloaded too.
    Later,
    /// It does not fit, whatever is unloaded.
    Never(String),
}

/// The answer to a question, and what is free where no model is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAnswer {
    /// The answer.
    pub verdict: RoomVerdict,
    /// See [`RoomQuestion::free_of_models`].
    pub free_of_models: u64,
}

impl RoomAnswer {
    /// The model does not fit, where it is not known what is free.
    pub fn never(reason: String) -> Self {
        RoomAnswer { verdict: RoomVerdict::Never(reason), free_of_models: 0 }
    }
}

/// Answers a question. As few models are unloaded as leave the context that the model would have alone, or at least
/// [`ENOUGH_CONTEXT`]. Memory counts as taken from the moment when a process is started, which takes it step by step.
pub async fn find(planner: &dyn Planner, question: &RoomQuestion) -> RoomAnswer {
    let Some(measured) = tokio::task::block_in_place(|| planner.free()) else {
        return RoomAnswer::never("the system does not say how much memory is free; name it (--memory)".to_owned());
    };
    let free_of_models = question.free_of_models.unwrap_or(measured);
    let now = free_of_models.saturating_sub(question.taken).min(measured);
    let whole = now.saturating_add(question.taken).min(free_of_models);
    let answer = |verdict| RoomAnswer { verdict, free_of_models };
    let model = question.model;
    let alone = match planner.plan(model, whole, true).await {
        Ok(plan) => plan,
        Err(reason) => return answer(RoomVerdict::Never(reason)),
    };
    let enough = alone.context.min(ENOUGH_CONTEXT);
    let mut free = now;
    for unloaded in 0..=question.unloadable.len() {
        if unloaded > 0 {
            free = free.saturating_add(question.unloadable[unloaded - 1]);
        }
        if free >= whole {
            return answer(RoomVerdict::Fits {
                unloaded,
                plan: with_reserve(planner, question, whole, enough, alone).await,
            });
        }
        match planner.plan(model, free, false).await {
            Ok(plan) if plan.total <= free && plan.context >= enough => {
                let plan = with_reserve(planner, question, free, enough, plan).await;
                return answer(RoomVerdict::Fits { unloaded, plan });
            }
            _ => {}
        }
    }
    answer(RoomVerdict::Later)
}

/// The plan that leaves the reserve to others, if the context is enough then; else `plan`.
async fn with_reserve(
    planner: &dyn Planner,
    question: &RoomQuestion,
    free: u64,
    enough: usize,
    plan: MemoryPlan,
) -> MemoryPlan {
    let Some(rest) = free.checked_sub(question.reserve).filter(|_| question.reserve > 0) else { return plan };
    match planner.plan(question.model, rest, false).await {
        Ok(smaller) if smaller.total <= rest && smaller.context >= enough => smaller,
        _ => plan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// A model of 100 bytes and a byte of cache for each token, of which it takes half of what is free, up to 20,000.
    struct Half(u64);

    impl Planner for Half {
        fn free(&self) -> Option<u64> {
            Some(self.0)
        }

        fn plan(&self, _: usize, free: u64, _: bool) -> BoxFuture<'_, Result<MemoryPlan, String>> {
            let cache = (free.saturating_sub(100) / 2).min(20_000);
            let plan = MemoryPlan { total: 100 + cache, beside_cache: 100, context: cache as usize };
            std::future::ready(if cache > 1 { Ok(plan) } else { Err(format!("100 of {free}")) }).boxed()
        }
    }

    async fn ask(
        measured: u64,
        free_of_models: Option<u64>,
        taken: u64,
        unloadable: &[u64],
        reserve: u64,
    ) -> RoomAnswer {
        let unloadable = unloadable.to_vec();
        find(&Half(measured), &RoomQuestion { model: 0, free_of_models, taken, unloadable, reserve }).await
    }

    fn fits(unloaded: usize, cache: u64, free_of_models: u64) -> RoomAnswer {
        let plan = MemoryPlan { total: 100 + cache, beside_cache: 100, context: cache as usize };
        RoomAnswer { verdict: RoomVerdict::Fits { unloaded, plan }, free_of_models }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn as_few_are_unloaded_as_leave_enough_context() {
        assert_eq!(ask(20_100, None, 0, &[], 0).await, fits(0, 10_000, 20_100));
        // 30,000 are free of models; one has 10,000 of them, so that 20,000 are left: 9,950 tokens.
        assert_eq!(ask(30_000, Some(30_000), 10_000, &[10_000], 0).await, fits(0, 9950, 30_000));
        // With 3,000 left, 2,000 and 13,000 must be given back.
        let answer = ask(3000, Some(18_000), 15_000, &[2000, 13_000], 0).await;
        assert_eq!(answer, fits(2, 8950, 18_000));
        // Where a model alone has less than enough, it is not given up for others.
        assert_eq!(ask(4100, Some(4100), 4000, &[4000], 0).await, fits(1, 2000, 4100));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_that_others_take_meanwhile_is_not_counted_on() {
        // 20,000 should be left, and 1,000 are.
        let answer = ask(1000, Some(30_000), 10_000, &[10_000], 0).await;
        assert_eq!(answer, fits(1, 5450, 30_000));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_being_loaded_is_waited_for_and_what_never_fits_is_told() {
        assert_eq!(ask(1000, Some(30_000), 29_000, &[], 0).await.verdict, RoomVerdict::Later);
        assert_eq!(ask(50, None, 0, &[], 0).await.verdict, RoomVerdict::Never("100 of 50".into()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn room_is_left_for_others_where_the_context_is_enough_all_the_same() {
        assert_eq!(ask(30_100, None, 0, &[], 10_000).await, fits(0, 10_000, 30_100));
        assert_eq!(ask(20_100, None, 0, &[], 10_000).await, fits(0, 10_000, 20_100));
    }
}
