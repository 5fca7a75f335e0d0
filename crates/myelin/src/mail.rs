//! Mail over SMTP, as configured.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::{FutureExt, future::BoxFuture};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use myelin_users::mail::{Mail, MailError, MailSetup, Mailer};

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(20);

/// `None`: no mail server is configured.
pub fn setup(config: &Config) -> anyhow::Result<Option<MailSetup>> {
    let Some(url) = &config.mail.smtp_url else { return Ok(None) };
    let base_url = config.server.public_base_url.as_ref();
    let base_url = base_url
        .context("mail.smtp_url is set, but not server.public_base_url, where links in mails lead")?;
    let from = config.mail.from.as_deref().context("mail.smtp_url is set, but not mail.from")?;
    Ok(Some(MailSetup {
        mailer: Arc::new(Smtp::new(&url.0, from)?),
        base_url: base_url.as_str().trim_end_matches('/').to_owned(),
        next_link_hosts: config.mail.next_link_hosts.clone(),
        required: config.mail.required,
    }))
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    fn new(url: &str, from: &str) -> anyhow::Result<Self> {
        // The URL holds a password: it is not repeated.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url);
        let transport =
            transport.map_err(|_| anyhow::anyhow!("mail.smtp_url is not a URL of a mail server"))?;
        let from = from.parse().context("mail.from is not an e-mail address")?;
        Ok(Self { transport: transport.timeout(Some(TIMEOUT)).build(), from })
    }

    async fn deliver(&self, mail: Mail) -> Result<(), MailError> {
        let failed = |error: &dyn std::fmt::Display| MailError(error.to_string());
        let message = Message::builder()
            .from(self.from.clone())
            .to(mail.to.parse().map_err(|error: lettre::address::AddressError| failed(&error))?)
            .subject(mail.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.text)
            .map_err(|error| failed(&error))?;
        self.transport.send(message).await.map(drop).map_err(|error| failed(&error))
    }
}

impl Mailer for Smtp {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        self.deliver(mail).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    /// A mail server that takes one mail: what it was told.
    async fn take_one(listener: TcpListener) -> String {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (reading, mut writing) = stream.split();
        let mut lines = BufReader::new(reading).lines();
        writing.write_all(b"220 mail.test\r\n").await.expect("written");
        let (mut told, mut in_data) = (String::new(), false);
        while let Some(line) = lines.next_line().await.expect("a line") {
            told.push_str(&line);
            told.push('\n');
            let answer: &[u8] = match line.as_str() {
                "." => {
                    in_data = false;
                    b"250 taken\r\n"
                }
                _ if in_data => continue,
                "DATA" => {
                    in_data = true;
                    b"354 go on\r\n"
                }
                "QUIT" => break,
                line if line.starts_with("EHLO") => b"250 mail.test\r\n",
                _ => b"250 ok\r\n",
            };
            writing.write_all(answer).await.expect("written");
            if line == "." {
                break;
            }
        }
        told
    }

    #[tokio::test]
    async fn mail_goes_to_the_mail_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let smtp =
            Smtp::new(&format!("smtp://127.0.0.1:{port}"), "Myelin <noreply@m.org>").expect("a mail server");
        let mail = Mail {
            to: "a@x.org".to_owned(),
            subject: "Hello".to_owned(),
            text: "link: https://m.org/x\n".to_owned(),
        };
        let (told, sent) = futures::join!(take_one(listener), smtp.send(mail));
        sent.expect("sent");
        for expected in
            ["MAIL FROM:<noreply@m.org>", "RCPT TO:<a@x.org>", "Subject: Hello", "link: https://m.org/x"]
        {
            assert!(told.contains(expected), "{expected} is not in {told}");
        }
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let smtp = Smtp::new(&format!("smtp://127.0.0.1:{port}"), "noreply@m.org").expect("a mail server");
        let mail = Mail { to: "a@x.org".to_owned(), subject: String::new(), text: String::new() };
        assert!(smtp.send(mail).await.is_err());
        assert!(Smtp::new("not a url", "noreply@m.org").is_err());
        assert!(Smtp::new("smtp://127.0.0.1", "nobody").is_err());
    }
}
