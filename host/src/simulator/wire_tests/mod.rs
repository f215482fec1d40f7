//! The simulator over a real socket. Here is the client that the tests talk through.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Settings, Simulator};

mod answers;
mod disturbances;

const DEADLINE: Duration = Duration::from_secs(10);
const LOGIN: &str = "auth ClueCon\n\n";
const GOODBYE: &str = "Content-Type: text/disconnect-notice\nContent-Length: 67\n\n\
    Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n";

async fn start(settings: Settings) -> Simulator {
    Simulator::start(settings).await.unwrap()
}

/// Sends all commands at once and returns everything until the server closes, without the greeting.
async fn talk(simulator: &Simulator, commands: &str) -> String {
    let mut client = Client::connect(simulator).await;
    client.send(commands).await;
    client.rest().await
}

/// The `Reply-Text` of every reply to the commands, after a login.
async fn replies(simulator: &Simulator, commands: &[&str]) -> Vec<String> {
    let commands = format!("{LOGIN}{}\n\nexit\n\n", commands.join("\n\n"));
    let all = talk(simulator, &commands).await;
    let replies = all
        .lines()
        .filter_map(|line| line.strip_prefix("Reply-Text: "));
    let mut replies: Vec<String> = replies.map(str::to_owned).collect();
    assert_eq!(replies.remove(0), "+OK accepted");
    assert_eq!(replies.pop().unwrap(), "+OK bye");
    replies
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(simulator: &Simulator) -> Client {
        let stream = TcpStream::connect(simulator.addr()).await.unwrap();
        Client { stream }
    }

    async fn subscribed(simulator: &Simulator, words: &str) -> Client {
        let mut client = Client::connect(simulator).await;
        client.send(&format!("{LOGIN}event {words}\n\n")).await;
        client.until("event listener enabled").await;
        client.until("\n\n").await;
        client
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads byte by byte up to and with a text.
    async fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let wanted = async {
            while !read.ends_with(text.as_bytes()) {
                read.push(self.stream.read_u8().await.unwrap());
            }
        };
        let in_time = timeout(DEADLINE, wanted).await.is_ok();
        let read = String::from_utf8_lossy(&read).into_owned();
        assert!(in_time, "{text:?} did not come, but {read:?}");
        read
    }

    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        timeout(DEADLINE, self.stream.read_to_end(&mut rest))
            .await
            .expect("an end")
            .unwrap();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        let greeting = "Content-Type: auth/request\n\n";
        rest.strip_prefix(greeting).unwrap_or(&rest).to_owned()
    }
}
