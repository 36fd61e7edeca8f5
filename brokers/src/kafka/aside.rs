use std::ops::Deref;
use std::thread;

/// A client of the library, which is ended on a thread of its own: to end one waits for its threads, for its
/// connections and sometimes for the brokers.
pub(super) struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(client) => client,
            None => unreachable!("it is taken by the drop alone"),
        }
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread to be had, it ends here.
        let _ = thread::Builder::new().name("windlass kafka end".into()).spawn(move || drop(client));
    }
}
