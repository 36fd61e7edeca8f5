//! The Windlass client: enqueue from Rust, and the grouped accept, publish and relay that the API and workers share.
