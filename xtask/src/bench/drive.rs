//! Keeps a number of users busy: each does one operation at a time, all together do them all.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use super::measure::{Cost, Samples, Window};
use super::server::Server;
use super::user::User;

/// When to stop, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub operations: usize,
    pub time: Duration,
}

impl Limit {
    /// However slow the server is: for what later steps rely on.
    pub fn whole(operations: usize) -> Self {
        Self { operations, time: Duration::MAX }
    }
}

/// Which operation a user does now.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The position of the user among those who are driven.
    pub user: usize,
    /// Counts the operations of all users, from 0.
    pub number: usize,
}

/// What a measured drive saw.
#[derive(Default)]
pub struct Driven {
    pub samples: Samples,
    pub cost: Cost,
}

impl Driven {
    pub fn sum(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::default(), |mut sum, part| {
            sum.samples.extend(part.samples);
            sum.cost += part.cost;
            sum
        })
    }
}

pub async fn drive<F>(users: &mut [User], limit: Limit, operation: F) -> Result<Samples>
where
    F: AsyncFn(&mut User, Turn) -> Result<()>,
{
    let started = Instant::now();
    let next = Cell::new(0);
    let take = || {
        let number = next.get();
        let open = number < limit.operations && started.elapsed() < limit.time;
        open.then(|| {
            next.set(number + 1);
            number
        })
    };
    let (take, operation) = (&take, &operation);
    let each = users.iter_mut().enumerate().map(|(index, user)| async move {
        let mut samples = Samples::default();
        while let Some(number) = take() {
            let begun = Instant::now();
            operation(user, Turn { user: index, number }).await?;
            samples.push(begun.elapsed());
        }
        anyhow::Ok(samples)
    });
    let mut all = Samples::default();
    for samples in try_join_all(each).await? {
        all.extend(samples);
    }
    Ok(all)
}

/// [`drive`] inside a window on the server.
pub async fn measured<F>(server: &Server, users: &mut [User], limit: Limit, operation: F) -> Result<Driven>
where
    F: AsyncFn(&mut User, Turn) -> Result<()>,
{
    let window = Window::open(server)?;
    let samples = drive(users, limit, operation).await?;
    Ok(Driven { samples, cost: window.close()? })
}
