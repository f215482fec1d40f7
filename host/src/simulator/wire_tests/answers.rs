//! Every command is answered as in the captures.

use super::super::{Event, Settings};
use super::{Client, GOODBYE, LOGIN, replies, start, talk};

#[tokio::test]
async fn logins_are_answered_as_captured() {
    let user = Some(("reader@lab.example".to_owned(), "readerpw".to_owned()));
    let simulator = start(Settings {
        user,
        ..Settings::default()
    })
    .await;
    let invalid = format!("Content-Type: command/reply\nReply-Text: -ERR invalid\n\n{GOODBYE}");
    assert_eq!(talk(&simulator, "auth wrong\n\n").await, invalid);
    assert_eq!(
        talk(&simulator, "userauth reader@lab.example:nope\n\n").await,
        invalid
    );
    let not_found = "Content-Type: command/reply\nReply-Text: -ERR command not found\n\n";
    let bye = format!("Content-Type: command/reply\nReply-Text: +OK bye\n\n{GOODBYE}");
    let late = talk(
        &simulator,
        "api status\n\nevent plain ALL\n\nauth ClueCon\n\nexit\n\n",
    )
    .await;
    let accepted = "Content-Type: command/reply\nReply-Text: +OK accepted\n\n";
    assert_eq!(late, format!("{not_found}{not_found}{accepted}{bye}"));
    let user = talk(
        &simulator,
        "userauth reader@lab.example:readerpw\n\nexit\n\n",
    )
    .await;
    assert!(user.contains("+OK accepted\nAllowed-Events: "), "{user}");
    assert_eq!(simulator.logins(), 2);
    simulator.stop().await;
}

#[tokio::test]
async fn an_access_list_rejects_without_a_greeting() {
    let simulator = start(Settings {
        acl_reject: true,
        ..Settings::default()
    })
    .await;
    let rejected = talk(&simulator, "").await;
    let rejection =
        "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n";
    assert_eq!(rejected, format!("{rejection}{GOODBYE}"));
    simulator.stop().await;
}

#[tokio::test]
async fn subscription_commands_are_answered_as_captured() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        ("event plain", "-ERR no keywords supplied"),
        ("event", "-ERR no keywords supplied"),
        ("nixevent", "-ERR no keywords supplied"),
        ("noevents", "-ERR not listening for events"),
        ("event plain NOSUCH", "-ERR no keywords supplied"),
        ("event json", "-ERR no keywords supplied"),
        ("event channel_answer", "+OK event listener enabled json"),
        (
            "event plain HEARTBEAT BOGUS CHANNEL_ANSWER",
            "+OK event listener enabled plain",
        ),
        ("event xml CHANNEL_ANSWER", "-ERR xml is not simulated"),
        ("nixevent CHANNEL_ANSWER", "+OK events nixed"),
        ("nixevent nosuchevent", "-ERR no keywords supplied"),
        ("noevents x", "+OK no longer listening for events"),
        ("filter", "-ERR command not found"),
        ("filter Event-Name", "-ERR invalid syntax"),
        (
            "filter Event-Name CHANNEL_ANSWER",
            "+OK filter added. [Event-Name]=[CHANNEL_ANSWER]",
        ),
        (
            "filter delete Event-Name CHANNEL_ANSWER",
            "+OK filter deleted. [Event-Name][CHANNEL_ANSWER]",
        ),
        (
            "filter delete Event-Name",
            "+OK filter deleted. [Event-Name][]",
        ),
        ("filter delete all", "+OK filter deleted. [all][]"),
    ];
    let commands = conversation.map(|(command, _)| command);
    let expected = conversation.map(|(_, reply)| reply);
    assert_eq!(replies(&simulator, &commands).await, expected);
    let heard = simulator.commands();
    assert!(
        heard
            .iter()
            .any(|command| command == "filter Event-Name CHANNEL_ANSWER"),
        "{heard:?}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn other_commands_are_answered_as_captured() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        ("hello", "-ERR command not found"),
        ("GET / HTTP/1.1\r\nHost: x\r", "-ERR command not found"),
        ("auth ClueCon", "-ERR command not found"),
        ("api", "-ERR command not found"),
        ("bgapi", "-ERR command not found"),
        (
            "sendmsg nosuch-uuid\ncall-command: execute",
            "-ERR invalid session id [nosuch-uuid]",
        ),
        ("linger", "-ERR not controlling a session"),
        ("nolinger", "-ERR not controlling a session"),
        ("divert_events on", "-ERR not controlling a session."),
        ("nolog", "-ERR not loging"),
        ("log debug", "+OK log level debug [7]"),
        ("log nosuchlevel", "-ERR invalid log level"),
        ("log 4", "+OK log level 4 [4]"),
        ("log", "+OK log level  [7]"),
        ("nolog", "+OK no longer logging"),
        (
            "bgapi echo x\nJob-UUID: my-own-job-id-1",
            "+OK Job-UUID: my-own-job-id-1",
        ),
    ];
    let commands = conversation.map(|(command, _)| command);
    assert_eq!(
        replies(&simulator, &commands).await,
        conversation.map(|(_, reply)| reply)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn api_commands_are_answered() {
    let simulator = start(Settings::default()).await;
    let conversation = [
        (
            "api version",
            "FreeSWITCH Version 1.11.2-release~64bit ( 64bit)\n",
        ),
        ("api switchname", "sim1"),
        ("API hostname", "sim"),
        ("api echo a\tb", "a\tb"),
        (
            "api nosuchcmd arg one",
            "-ERR nosuchcmd Command not found!\n",
        ),
        ("api ", "-ERR  Command not found!\n"),
        ("api global_getvar nosuchvar", "-ERR no reply\n"),
        ("api show channels as json", "{\"row_count\": 0}\n"),
        ("api uuid_exists nosuch", "false"),
    ];
    for (command, answer) in conversation {
        let all = talk(&simulator, &format!("{LOGIN}{command}\n\nexit\n\n")).await;
        let expected = format!(
            "Content-Type: api/response\nContent-Length: {}\n\n{answer}",
            answer.len()
        );
        assert!(all.contains(&expected), "{command}: {all}");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_background_job_ends_in_an_event() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain API BACKGROUND_JOB").await;
    client
        .send("bgapi echo custom id\nJob-UUID: mine\n\n")
        .await;
    client
        .until("Reply-Text: +OK Job-UUID: mine\nJob-UUID: mine\n\n")
        .await;
    let api = client.until("API-Command-Argument: custom%20id\n\n").await;
    assert!(
        api.contains("\nEvent-Calling-Function: switch_api_execute\n"),
        "{api}"
    );
    let job = client.until("\n\ncustom id").await;
    let end = "Job-UUID: mine\nJob-Command: echo\nJob-Command-Arg: custom%20id\nContent-Length: 9\n\ncustom id";
    assert!(job.ends_with(end), "{job}");
    assert!(
        job.contains("\nEvent-Calling-Function: api_exec\n"),
        "{job}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn a_sent_event_carries_forged_headers_before_the_true_ones() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "json CUSTOM lab::note").await;
    client
        .send("sendevent CUSTOM\nEvent-Subclass: lab::note\nEvent-Name: FORGED\nARR: ARRAY::p|:q\nContent-Length: 5\n\nhello")
        .await;
    client.until("+OK ").await;
    let event = client.until("\"_body\":\"hello\"}").await;
    let start = "{\"Event-Subclass\":\"lab::note\",\"Command\":\"sendevent CUSTOM\",\"Event-Name\":\"FORGED\",\
        \"ARR\":[\"p\",\"q\"],\"Content-Length\":\"5\",\"Event-UUID\":\"";
    assert!(event.contains(start), "{event}");
    assert!(
        event.contains("\"Event-Name\":\"CUSTOM\",\"Core-UUID\""),
        "{event}"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn half_a_command_holds_the_events_back() {
    let simulator = start(Settings::default()).await;
    let mut client = Client::subscribed(&simulator, "plain CUSTOM test::x").await;
    client.send("api ver").await;
    let fire = |number: &str| {
        simulator.fire(
            Event::new("CUSTOM")
                .header("Event-Subclass", "test::x")
                .header("N", number),
        )
    };
    // The half command has certainly arrived once a second connection is served after it.
    replies(&simulator, &[]).await;
    fire("1");
    client.send("sion\n\n").await;
    let answered = client.until("( 64bit)\n").await;
    assert!(
        !answered.contains("N: 1"),
        "the event waits for the answer: {answered}"
    );
    client.until("N: 1\n\n").await;
    simulator.stop().await;
}

#[tokio::test]
async fn live_calls_are_listed() {
    let simulator = start(Settings::default()).await;
    simulator.fire(
        Event::new("CHANNEL_CREATE")
            .header("Unique-ID", "a")
            .header("Channel-State", "CS_INIT"),
    );
    simulator.fire(
        Event::new("CHANNEL_STATE")
            .header("Unique-ID", "a")
            .header("Channel-State", "CS_EXECUTE"),
    );
    let listed = talk(
        &simulator,
        &format!("{LOGIN}api show channels as json\n\nexit\n\n"),
    )
    .await;
    assert!(
        listed.contains("{\"row_count\":1,\"rows\":[{\"uuid\":\"a\",\"direction\":\"\","),
        "{listed}"
    );
    assert!(listed.contains("\"state\":\"CS_EXECUTE\""), "{listed}");
    simulator.fire(Event::new("CHANNEL_DESTROY").header("Unique-ID", "a"));
    let listed = talk(
        &simulator,
        &format!("{LOGIN}api show channels as json\n\nexit\n\n"),
    )
    .await;
    assert!(listed.contains("{\"row_count\": 0}"), "{listed}");
    simulator.stop().await;
}
