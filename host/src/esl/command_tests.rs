//! The link for commands against a FreeSWITCH of a few bytes: what a real or a simulated one does not do on request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::commands::MOST;
use super::{CommandError, CommandLink, Commands};
use crate::config::{self, Sources};
use crate::link::Link;

const WITHIN: Duration = Duration::from_secs(20);

/// A link to a listener of ours. It ends with the set.
async fn start() -> (TcpListener, Commands, Arc<Link>, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flags = vec![
        ("esl.port".to_owned(), port.to_string()),
        ("esl.backoff.initial".to_owned(), "10ms".to_owned()),
        ("esl.backoff.max".to_owned(), "20ms".to_owned()),
    ];
    let sources = Sources {
        flags,
        ..Sources::default()
    };
    let settings = config::load(sources).unwrap().esl;
    let link = |name| Arc::new(Link::new(name, String::new(), 15));
    let (commands, link, events) = (Commands::default(), link("commands"), link("esl"));
    events.ready();
    let command_link = CommandLink {
        settings,
        commands: commands.clone(),
        link: Arc::clone(&link),
        events,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let never = command_link.run().await;
        match never {}
    });
    (listener, commands, link, tasks)
}

/// FreeSWITCH's end of a connection.
struct Switch(BufReader<TcpStream>);

impl Switch {
    /// Takes the next connection through its login and its subscription.
    async fn accept(listener: &TcpListener) -> Switch {
        let accepted = timeout(WITHIN, listener.accept()).await;
        let mut switch = Switch(BufReader::new(accepted.unwrap().unwrap().0));
        switch.say("Content-Type: auth/request\n\n").await;
        assert_eq!(switch.command().await, "auth ClueCon");
        switch.reply("+OK accepted").await;
        assert_eq!(
            switch.command().await,
            "event json BACKGROUND_JOB HEARTBEAT"
        );
        switch.reply("+OK event listener enabled json").await;
        switch
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn reply(&mut self, text: &str) {
        let reply = format!("Content-Type: command/reply\nReply-Text: {text}\n\n");
        self.say(&reply).await;
    }

    async fn answer(&mut self, body: &[u8]) {
        let head = format!(
            "Content-Type: api/response\nContent-Length: {}\n\n",
            body.len()
        );
        self.say(&head).await;
        self.0.write_all(body).await.unwrap();
    }

    /// The next command, its lines joined.
    async fn command(&mut self) -> String {
        let mut command = String::new();
        while !command.ends_with("\n\n") {
            let read = timeout(WITHIN, self.0.read_line(&mut command)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "closed after {command:?}");
        }
        command.trim_end().to_owned()
    }
}

fn ask(commands: &Commands, tasks: &mut JoinSet<Result<Bytes, CommandError>>, command: String) {
    let commands = commands.clone();
    tasks.spawn(async move { commands.api(&command, WITHIN).await });
}

#[tokio::test]
async fn a_large_answer_comes_whole_and_one_that_is_too_large_is_passed_over() {
    let (listener, commands, _link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    let large = vec![b'x'; 25 << 20];
    let (answer, ()) = tokio::join!(commands.api("show channels as json", WITHIN), async {
        switch.command().await;
        switch.answer(&large).await;
    });
    assert!(answer.unwrap() == large, "25 MiB to the byte");
    let (first, second, ()) = tokio::join!(
        commands.api("show everything", WITHIN),
        commands.api("status", WITHIN),
        async {
            switch.command().await;
            switch.command().await;
            switch.answer(&vec![b'x'; (64 << 20) + 1]).await;
            switch.answer(b"UP").await;
        }
    );
    let (bytes, most) = ((64 << 20) + 1, 64 << 20);
    assert_eq!(first, Err(CommandError::TooLarge { bytes, most }));
    assert_eq!(second.unwrap(), "UP", "and the next one is the next one's");
}

#[tokio::test]
async fn a_switch_that_is_stuck_holds_so_many_commands_and_no_more() {
    let (listener, commands, _link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    let mut callers = JoinSet::new();
    for number in 0..MOST {
        ask(&commands, &mut callers, format!("echo {number}"));
    }
    for _ in 0..MOST {
        switch.command().await;
    }
    let busy = commands.api("status", WITHIN).await;
    assert_eq!(busy, Err(CommandError::Busy), "one too many");
    // One that gave up keeps its place, as its answer will come.
    callers.abort_all();
    while callers.join_next().await.is_some() {}
    assert_eq!(
        commands.api("status", WITHIN).await,
        Err(CommandError::Busy)
    );
    switch.answer(b"late").await;
    let answered = async {
        // The place is free a moment after the answer.
        loop {
            match commands.api("status", WITHIN).await {
                Err(CommandError::Busy) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    };
    let (answer, ()) = tokio::join!(answered, async {
        assert_eq!(switch.command().await, "api status");
        for _ in 1..MOST {
            switch.answer(b"late").await;
        }
        switch.answer(b"UP").await;
    });
    assert_eq!(answer.unwrap(), "UP");
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let (listener, commands, link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    switch.answer(b"whose?").await;
    let mut next = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    assert_eq!(link.snapshot().ended.get("unasked"), Some(&1));
    let (answer, ()) = tokio::join!(commands.api("status", WITHIN), async {
        next.command().await;
        next.answer(b"UP").await;
    });
    assert_eq!(answer.unwrap(), "UP");
}

#[tokio::test]
async fn what_freeswitch_says_in_place_of_an_answer_is_the_answer() {
    let (listener, commands, _link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    let (api, job, ()) = tokio::join!(
        commands.api("status", WITHIN),
        commands.background("status", WITHIN),
        async {
            switch.command().await;
            let job = switch.command().await;
            assert!(job.starts_with("bgapi status\nJob-UUID: "), "{job:?}");
            switch.reply("-ERR permission denied").await;
            switch.reply("-ERR permission denied").await;
        }
    );
    assert_eq!(api.unwrap(), "-ERR permission denied");
    assert_eq!(job.unwrap(), "-ERR permission denied");
}

#[tokio::test]
async fn a_job_may_end_before_we_hear_that_it_has_begun_and_without_a_text() {
    let (listener, commands, _link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    let (answer, ()) = tokio::join!(commands.background("status", WITHIN), async {
        let job = switch.command().await;
        let uuid = job.rsplit(' ').next().unwrap();
        let event = format!("{{\"Event-Name\":\"BACKGROUND_JOB\",\"Job-UUID\":\"{uuid}\"}}");
        let length = event.len();
        let event = format!("Content-Length: {length}\nContent-Type: text/event-json\n\n{event}");
        switch.say(&event).await;
    });
    assert_eq!(answer.unwrap(), "");
}

#[tokio::test]
async fn who_asked_before_a_loss_is_told_and_who_asks_after_it_too() {
    let (listener, commands, _link, _tasks) = start().await;
    let mut switch = Switch::accept(&listener).await;
    assert!(commands.connected(WITHIN).await);
    let mut callers = JoinSet::new();
    for number in 0..3 {
        ask(&commands, &mut callers, format!("echo {number}"));
    }
    switch.command().await;
    drop(listener);
    drop(switch);
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.unwrap(), Err(CommandError::ConnectionLost));
    }
    let answer = commands.api("status", WITHIN).await;
    assert_eq!(answer, Err(CommandError::NotConnected));
}
