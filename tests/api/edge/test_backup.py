"""A backup of a server during training, and a server on the backup."""

from pathlib import Path

from permissions import exposed_paths
from training_jobs import SYSTEM, create, training_file, training_server, wait

from emojitune.store.backup import back_up


def test_a_server_on_the_backup_continues_from_the_copy(tmp_path: Path, tiny_base: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    hyperparameters = {"n_epochs": 8, "batch_size": 1}
    home.mkdir(mode=0o755)  # as users create one
    with training_server(home, tiny_base) as client:
        done = wait(
            client, create(client, training_file(tmp_path), hyperparameters={"n_epochs": 1}).id
        )
        running = create(client, training_file(tmp_path), hyperparameters=hyperparameters, seed=5)
        wait(client, running.id, lambda job: job.status == "running")
        assert back_up(home, copy).missing == ()
        assert list(exposed_paths(home)) == []
        first = wait(client, running.id)
        content = client.files.content(done.training_file).read()
    with training_server(copy, tiny_base) as client:
        assert client.files.content(done.training_file).read() == content
        reply = client.chat.completions.create(
            model=str(done.fine_tuned_model),
            messages=[SYSTEM, {"role": "user", "content": "What is going on?"}],
            max_tokens=50,
        )
        assert reply.choices[0].message.content
        again = wait(client, running.id)
        assert again.status == "succeeded", again.error
        assert again.fine_tuned_model == first.fine_tuned_model
    [one, two] = [
        (folder / "adapters" / f"{running.id}-step-96" / "adapter_model.safetensors").read_bytes()
        for folder in (home, copy)
    ]
    assert one == two
