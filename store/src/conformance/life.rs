use super::support::{Case, job};

/// A store with its schema answers, and migrating again, from several sides, changes nothing in it.
pub async fn migrating_again_changes_nothing(case: Case) {
    case.store.ping().await.unwrap();
    let job = job();
    case.insert(std::slice::from_ref(&job)).await;
    let before = case.picture(&[job.id]).await;
    let (a, b) = futures::join!(case.store.migrate(), case.other.migrate());
    a.and(b).unwrap();
    case.other.ping().await.unwrap();
    assert_eq!(case.picture(&[job.id]).await, before);
}

/// Housekeeping leaves everything that counts alone, also when several do it.
pub async fn housekeeping_may_be_repeated(case: Case) {
    let running = case.running(1).await[0];
    let waiting = case.queued(1).await[0];
    let before = case.picture(&[running.id, waiting]).await;
    let (a, b) = futures::join!(case.store.maintain(), case.other.maintain());
    a.and(b).unwrap();
    case.store.maintain().await.unwrap();
    assert_eq!(case.picture(&[running.id, waiting]).await, before);
    case.store.heartbeat(running.worker).await.unwrap();
}

/// What one client wrote, another reads at once.
pub async fn clients_see_each_other(case: Case) {
    for _ in 0..50 {
        let job = job();
        case.store.insert(std::slice::from_ref(&job)).await.unwrap();
        assert_eq!(case.other.get(&[job.id]).await.unwrap().len(), 1);
    }
}
