//! A simulated [`Env`]: virtual time, seeded chance, tasks in one thread.
//!
//! A crate of its own below `myelin-testkit`, so that a domain crate's tests build it without building the server.
//!
//! Must not know: anything above `myelin-core`.
//!
//! ```
//! use std::time::Duration;
//! let sim = myelin_testenv::Sim::new(7);
//! let env = sim.env();
//! let started = env.now_ms();
//! sim.block_on(async { env.clock.sleep(Duration::from_secs(3600)).await });
//! assert_eq!(env.now_ms() - started, 3_600_000);
//! ```

mod clock;
mod tasks;

use std::{pin::Pin, sync::Arc};

use myelin_core::{Env, Rng};
use parking_lot::Mutex;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

pub use self::clock::SimClock;
use self::tasks::{Machines, SimTasks};

/// One machine in a simulated world. Cheap to clone; clones are the same machine. All machines of a world share time
/// and chance, and run whenever one of them waits in [`Sim::block_on`].
#[derive(Clone)]
pub struct Sim {
    clock: Arc<SimClock>,
    rng: Arc<SimRng>,
    machines: Arc<Machines>,
    tasks: Arc<SimTasks>,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let rng = Arc::new(SimRng(Mutex::new(ChaCha20Rng::seed_from_u64(seed))));
        Self::alone(Arc::default(), rng)
    }

    /// The same world after its only machine was switched off and on: time and chance go on, tasks are gone.
    pub fn rebooted(&self) -> Self {
        Self::alone(self.clock.clone(), self.rng.clone())
    }

    /// Another machine in this world, with tasks of its own.
    pub fn machine(&self) -> Self {
        Self { tasks: self.machines.switch_on(), ..self.clone() }
    }

    /// Drops all tasks of this machine where they stand; it runs no others. The rest of the world goes on.
    pub fn switch_off(&self) {
        self.machines.switch_off(&self.tasks);
    }

    pub fn is_off(&self) -> bool {
        self.tasks.is_off()
    }

    fn alone(clock: Arc<SimClock>, rng: Arc<SimRng>) -> Self {
        let machines = Arc::new(Machines::default());
        Self { clock, rng, tasks: machines.switch_on(), machines }
    }

    pub fn env(&self) -> Env {
        Env { clock: self.clock.clone(), rng: self.rng.clone(), spawner: self.tasks.clone() }
    }

    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Runs `future` to its end together with every task of every machine. When nobody can go on, time jumps to the next
    /// timer.
    ///
    /// # Panics
    /// When nobody can go on and no timer is set: the test waits for something that never happens.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        futures::pin_mut!(future);
        loop {
            if let Some(output) = self.machines.run_until_stalled(future.as_mut()) {
                return output;
            }
            assert!(self.clock.jump_to_next_timer(), "deadlock: everybody waits and no timer is set");
        }
    }

    /// Runs spawned tasks until none can go on; time stands still.
    pub fn settle(&self) {
        self.machines.run_until_stalled(Pin::new(&mut std::future::pending::<()>()));
    }
}

struct SimRng(Mutex<ChaCha20Rng>);

impl Rng for SimRng {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_seed_fixes_chance() {
        let text = |seed| Sim::new(seed).env().random_string(32);
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn timers_fire_in_order_and_time_jumps_between_them() {
        let sim = Sim::new(1);
        let env = sim.env();
        let order = Arc::new(Mutex::new(Vec::new()));
        for seconds in [30, 10, 20] {
            let (order, clock) = (order.clone(), env.clock.clone());
            let task = async move {
                clock.sleep(Duration::from_secs(seconds)).await;
                order.lock().push(seconds);
            };
            env.spawner.spawn("test", Box::pin(task));
        }
        sim.block_on(env.clock.sleep(Duration::from_secs(25)));
        assert_eq!(*order.lock(), [10, 20]);
        sim.clock().advance(Duration::from_secs(5));
        sim.settle();
        assert_eq!(*order.lock(), [10, 20, 30]);
    }

    #[test]
    fn a_timeout_ends_what_never_happens() {
        let sim = Sim::new(1);
        let env = sim.env();
        let output = sim.block_on(env.timeout(Duration::from_secs(5), std::future::pending::<()>()));
        assert_eq!(output, None);
    }

    #[test]
    fn blocking_work_runs_in_place() {
        let sim = Sim::new(1);
        assert_eq!(sim.block_on(sim.env().blocking(|| 7)), Some(7));
    }

    #[test]
    fn a_machine_that_is_switched_off_stops_and_the_others_go_on() {
        let sim = Sim::new(1);
        let ticks = Arc::new(Mutex::new([0; 2]));
        let machines = [sim.machine(), sim.machine()];
        for (number, machine) in machines.iter().enumerate() {
            let (ticks, clock) = (ticks.clone(), machine.env().clock);
            let tick = async move {
                loop {
                    clock.sleep(Duration::from_secs(1)).await;
                    ticks.lock()[number] += 1;
                }
            };
            machine.env().spawner.spawn("tick", Box::pin(tick));
        }
        let wait = || sim.block_on(sim.env().clock.sleep(Duration::from_millis(2_300)));
        wait();
        assert_eq!(*ticks.lock(), [2, 2]);
        machines[0].switch_off();
        assert!(machines[0].is_off() && !machines[1].is_off());
        machines[0].env().spawner.spawn("late", Box::pin(async { panic!("nothing runs on it any more") }));
        wait();
        assert_eq!(*ticks.lock(), [2, 4]);
        assert_eq!(Arc::strong_count(&ticks), 2, "the tasks of the first are dropped");
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_deadlock_is_a_failure() {
        Sim::new(1).block_on(std::future::pending::<()>());
    }
}
