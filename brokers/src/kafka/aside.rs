use std::ops::Deref;
use std::thread;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A client of the library, which is ended on a thread of its own: to end one waits for its threads, for its
/// connections and sometimes for the brokers. Until then it counts as ending.
pub(super) struct Aside<T: Send + 'static>(Option<(T, TaskTrackerToken)>);

impl<T: Send + 'static> Aside<T> {
    pub(super) fn new(client: T, ending: &TaskTracker) -> Self {
        Self(Some((client, ending.token())))
    }
}

impl<T: Send + 'static> Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some((client, _)) => client,
            None => unreachable!("it is taken by the drop alone"),
        }
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread to be had, it ends here. The fields of a tuple are dropped in their order.
        let _ = thread::Builder::new().name("windlass kafka end".into()).spawn(move || drop(client));
    }
}
