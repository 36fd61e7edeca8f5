//! A server of the test's own, started by `scripts/services`.

use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use windlass_brokers::conformance::{Order, Server};
use windlass_core::Broker;

pub(crate) struct OwnServer {
    name: &'static str,
    keeps_data: bool,
    environment: &'static [(&'static str, &'static str)],
    dir: TempDir,
    pub(crate) url: String,
}

impl OwnServer {
    /// Starts the service `name`, with `environment` for the script.
    pub(crate) async fn start(
        name: &'static str,
        environment: &'static [(&'static str, &'static str)],
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let mut server = Self { name, keeps_data: true, environment, dir, url: String::new() };
        server.url = server.printed(name).await;
        server
    }

    /// Where the server speaks TLS.
    #[allow(dead_code, reason = "not in every file that has this module")]
    pub(crate) async fn tls_url(&self) -> String {
        self.printed(&format!("{}_TLS", self.name)).await
    }

    /// The URL of `name`, as the script prints it for what runs.
    async fn printed(&self, name: &str) -> String {
        let lines = self.tell("up").await;
        let variable = format!("WINDLASS_TEST_{}_URL='", name.to_uppercase());
        let url = lines.split_once(&variable).and_then(|(_, rest)| rest.split_once('\''));
        url.expect("scripts/services prints the URL").0.into()
    }

    /// For servers that keep nothing beyond their process.
    #[allow(dead_code, reason = "not in every file that has this module")]
    pub(crate) fn forgetful(mut self) -> Self {
        self.keeps_data = false;
        self
    }

    async fn tell(&self, command: &str) -> String {
        let mut script = self.script(command);
        script.arg(self.name).stderr(Stdio::inherit());
        let output = tokio::task::spawn_blocking(move || script.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "scripts/services {command} failed");
        String::from_utf8(output.stdout).unwrap()
    }

    fn script(&self, command: &str) -> Command {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services"));
        script.arg(command).arg("--dir").arg(self.dir.path()).envs(self.environment.iter().copied());
        script
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.script("down").output();
    }
}

#[async_trait]
impl Server for OwnServer {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&self.url).await.unwrap()
    }

    async fn order(&self, order: Order) {
        let command = match order {
            Order::Start => "start",
            Order::Stop => "stop",
            Order::Kill => "kill",
            Order::Wipe => "wipe",
            Order::Settle => "settle",
        };
        self.tell(command).await;
    }

    fn keeps_data(&self) -> bool {
        self.keeps_data
    }
}
