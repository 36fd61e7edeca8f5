//! Mail into the outbox, and to a small mail server.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use windlass::{Decision, JobId, testing};
use windlass_examples::{MailError, Mailer, SendEmail, send_email};

fn mail(to: &str) -> SendEmail {
    SendEmail { to: to.into(), subject: "Ahoi, Jörg".into(), body: "Line one\n.\nline three".into() }
}

#[tokio::test]
async fn the_outbox_gets_one_file_per_job() {
    let outbox = tempfile::tempdir().unwrap();
    let mailer = Mailer::outbox(outbox.path());
    let (first, second) = (JobId::new(), JobId::new());
    let receipt = mailer.send(first, &mail("Ada <ada@example.com>")).await.unwrap();
    let path = outbox.path().join(format!("{first}.eml"));
    let written = std::fs::read(&path).unwrap();
    let text = String::from_utf8(written.clone()).unwrap();
    assert!(text.contains(&format!("Message-ID: {}\r\n", receipt.message_id)), "{text}");
    assert!(
        receipt.message_id.contains(&first.to_string()) && text.contains("To: Ada <ada@example.com>"),
        "{text}"
    );

    // Another attempt: the same receipt, the same bytes, no second file.
    assert_eq!(mailer.send(first, &mail("Ada <ada@example.com>")).await.unwrap(), receipt);
    assert_eq!(std::fs::read(&path).unwrap(), written);
    mailer.send(second, &mail("ada@example.com")).await.unwrap();
    assert_eq!(std::fs::read_dir(outbox.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn an_impossible_address_is_refused_for_good() {
    let outbox = tempfile::tempdir().unwrap();
    for to in
        ["", "ada", "ada@", "a b@example.com", "ada@example.com\r\nBcc: all@example.com", "a@b.c, d@e.f"]
    {
        let error = Mailer::outbox(outbox.path()).send(JobId::new(), &mail(to)).await.unwrap_err();
        assert!(matches!(error, MailError::Payload { .. }) && error.is_permanent(), "{to}: {error}");
    }
    assert_eq!(std::fs::read_dir(outbox.path()).unwrap().count(), 0);
}

/// As a worker calls it.
#[tokio::test]
async fn the_handler_answers_with_a_receipt_or_gives_up_for_good() {
    let outbox = tempfile::tempdir().unwrap();
    let test = testing::attempt(mail("ada@example.com")).state(Mailer::outbox(outbox.path())).await.unwrap();
    let receipt = test.run(send_email).await.unwrap();
    let id = test.context().job_id();
    assert_eq!(receipt["message_id"], format!("<{id}@windlass.example>"));
    assert!(outbox.path().join(format!("{id}.eml")).exists());

    let test = testing::attempt(mail("ada")).state(Mailer::outbox(outbox.path())).await.unwrap();
    assert_eq!(test.run(send_email).await.unwrap_err().decision(), Decision::Discard);
}

#[tokio::test]
async fn a_subject_cannot_add_headers() {
    let outbox = tempfile::tempdir().unwrap();
    let id = JobId::new();
    let sly = SendEmail { subject: "Hello\r\nBcc: all@example.com".into(), ..mail("ada@example.com") };
    Mailer::outbox(outbox.path()).send(id, &sly).await.unwrap();
    let text = std::fs::read_to_string(outbox.path().join(format!("{id}.eml"))).unwrap();
    assert!(!text.lines().any(|line| line.starts_with("Bcc")), "{text}");
}

#[tokio::test]
async fn a_mail_server_gets_the_mail_and_a_repeat_has_the_same_id() {
    let server = Server::start("250 kept").await;
    let mailer = Mailer::smtp(&server.url).unwrap();
    let id = JobId::new();
    let receipt = mailer.send(id, &mail("ada@example.com")).await.unwrap();
    assert_eq!(mailer.send(id, &mail("ada@example.com")).await.unwrap(), receipt);
    let mails = server.mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0], mails[1], "the same bytes");
    assert!(mails[0].contains(&format!("Message-ID: {}\r\n", receipt.message_id)), "{}", mails[0]);
}

#[tokio::test]
async fn a_refusal_is_final_or_not_as_the_server_says() {
    for (answer, permanent) in
        [("550 no such mailbox", true), ("451 try later", false), ("530 log in first", false)]
    {
        let server = Server::start(answer).await;
        let error = Mailer::smtp(&server.url)
            .unwrap()
            .send(JobId::new(), &mail("ada@example.com"))
            .await
            .unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{answer}: {error}");
    }
    // Nobody listens there any more.
    let url = Server::start("250 kept").await.stop();
    let error = Mailer::smtp(&url).unwrap().send(JobId::new(), &mail("ada@example.com")).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
}

#[test]
fn a_bad_server_url_is_not_repeated() {
    let error = Mailer::smtp("http://me:hunter2@mail").err().unwrap().to_string();
    assert!(error.contains("WINDLASS_SMTP_URL") && !error.contains("hunter2"), "{error}");
}

/// Speaks as much SMTP as a client needs, and gives `answer` to each mail.
struct Server {
    url: String,
    mails: Arc<Mutex<Vec<String>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let mails = Arc::new(Mutex::new(Vec::new()));
        let kept = mails.clone();
        let accepting = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(session(stream, answer, kept.clone()));
            }
        });
        Self { url, mails, accepting }
    }

    fn stop(self) -> String {
        self.accepting.abort();
        self.url
    }
}

async fn session(
    mut stream: TcpStream,
    answer: &'static str,
    mails: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    writer.write_all(b"220 test\r\n").await?;
    let mut line = String::new();
    while reader.read_line(&mut line).await? > 0 {
        let reply = match line.split([' ', '\r']).next().unwrap_or_default() {
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") && reader.read_line(&mut mail).await? > 0 {}
                mails.lock().unwrap().push(mail);
                answer
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
