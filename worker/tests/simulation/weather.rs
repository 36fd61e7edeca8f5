//! What can go wrong, and how often.

use fastrand::Rng;

/// How often things go wrong. Each seed has a weather of its own, in which some things never do.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    // Of calls, each a part of all.
    /// Fail before they arrive.
    pub refuse: f64,
    /// Are done, and their answer is lost.
    pub lose: f64,
    /// Have no answer, and are done at once, late, or never.
    pub hang: f64,
    /// Take long, there or back.
    pub slow: f64,
    // Of messages.
    /// Are lost after the broker has confirmed them.
    pub drop: f64,
    /// Come twice.
    pub duplicate: f64,
    /// Come late.
    pub delay: f64,
    /// Come in the wrong order.
    pub reorder: f64,
    /// Are refused.
    pub reject: f64,
    // Of processes, for each and a minute.
    pub crash: f64,
    pub pause: f64,
    pub cut: f64,
    /// Are stopped in good order, and replaced.
    pub restart: f64,
    // In a minute.
    pub store_down: f64,
    pub broker_down: f64,
    pub broker_wiped: f64,
    /// Messages that are stale, or of nobody's job.
    pub stray: f64,
}

impl Weather {
    pub fn of(rng: &mut Rng) -> Self {
        let mut up_to = |most: f64| if rng.u32(..3) == 0 { 0.0 } else { rng.f64() * most };
        Self {
            refuse: up_to(0.1),
            lose: up_to(0.1),
            hang: up_to(0.06),
            slow: up_to(0.1),
            drop: up_to(0.3),
            duplicate: up_to(0.3),
            delay: up_to(0.3),
            reorder: up_to(0.5),
            reject: up_to(0.1),
            crash: up_to(6.0),
            pause: up_to(6.0),
            cut: up_to(6.0),
            restart: up_to(6.0),
            store_down: up_to(4.0),
            broker_down: up_to(4.0),
            broker_wiped: up_to(4.0),
            stray: up_to(120.0),
        }
    }

    /// Messages still come in any order and more than once, as every broker may have it.
    pub fn calmed(&self) -> Self {
        Self { duplicate: self.duplicate, reorder: self.reorder, ..Self::default() }
    }
}
