//! Work that somebody elsewhere waits for and that a machine does: it ends with the machine, not with who waits.

use futures::{FutureExt, channel::oneshot, future::AbortHandle};
use myelin_core::Env;

/// Does the work as a task of the machine, to its end even if nobody waits any more. `None`: the machine went down.
pub(crate) async fn run<T: Send + 'static>(
    env: &Env,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    env.spawner.spawn("request", work.map(|output| drop(sender.send(output))).boxed());
    receiver.await.ok()
}

/// The same, but the work is dropped where it stands when nobody waits for it any more, as an HTTP server does when
/// the connection closes.
pub(crate) async fn run_while_asked<T: Send + 'static>(
    env: &Env,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (work, handle) = futures::future::abortable(work);
    let _asked = Asked(handle);
    run(env, work).await.and_then(Result::ok)
}

struct Asked(AbortHandle);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}
