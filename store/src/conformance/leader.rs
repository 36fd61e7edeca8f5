use std::time::Duration;

use futures::future::join_all;
use windlass_core::WorkerId;

use super::support::{Case, HOUR};

/// One leads at a time, for each name, and keeps leading by renewing.
pub async fn one_leads(case: Case) {
    let (a, b) = (WorkerId::new(), WorkerId::new());
    assert!(case.store.lead("scheduler", a, HOUR).await.unwrap());
    assert!(!case.other.lead("scheduler", b, HOUR).await.unwrap());
    assert!(case.other.lead("relay", b, HOUR).await.unwrap(), "another name is another lease");
    assert!(case.other.lead("scheduler", a, HOUR).await.unwrap(), "a renewal");
    assert!(!case.store.lead("scheduler", b, HOUR).await.unwrap());
}

/// Who does not renew is succeeded by another, and can tell.
pub async fn leadership_passes_on(case: Case) {
    let (a, b) = (WorkerId::new(), WorkerId::new());
    assert!(case.store.lead("scheduler", a, HOUR).await.unwrap());
    assert!(
        !case.other.lead("scheduler", b, Duration::ZERO).await.unwrap(),
        "nobody else can step down for it"
    );
    // It steps down: its lease ends now.
    assert!(case.store.lead("scheduler", a, Duration::ZERO).await.unwrap());
    assert!(case.other.lead("scheduler", b, HOUR).await.unwrap());
    assert!(!case.store.lead("scheduler", a, HOUR).await.unwrap());
}

/// Of many that stand at once, one is elected.
pub async fn elections_have_one_winner(case: Case) {
    for round in 0..10 {
        let name = format!("round {round}");
        let candidates = (0..12).map(|i| {
            let store = if i % 2 == 0 { &case.store } else { &case.other };
            store.lead(&name, WorkerId::new(), HOUR)
        });
        let elected = join_all(candidates).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(elected, 1);
    }
}
