"""Push a folder of explanations (`bcos_hf.data.explain_dataset`) as a data set that `load_dataset` reads."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from .explanation_card import explanation_card
from .explanation_folder import whole_splits
from .push import existing_card


def push_explanations(folder: str | Path, repo_id: str, private: bool | None = None, token: str | None = None, commit_message: str | None = None) -> str:
    """Push `folder` to the data set repository `repo_id` in one commit; returns its address.

    What a person wrote in the card there (or, where there is none, in the folder's) stays; shards of an earlier push that are no longer there are deleted.

    Raises:
        RuntimeError: the explanations are incomplete; nothing was pushed. huggingface_hub's errors: the Hub refused.
    """
    folder, splits, api = Path(folder), whole_splits(folder), HfApi(token=token)
    local = folder / "README.md"
    existing = existing_card(repo_id, token, "dataset") or (local.read_text(encoding="utf-8") if local.exists() else None)
    files = [path for split in splits for path in (split.record, *map(split.shard, range(len(split.shards))))]
    names = [path.relative_to(folder).as_posix() for path in files]
    card = explanation_card(splits, repo_id, existing)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    stale = {path for path in api.list_repo_files(repo_id, repo_type="dataset") for split in splits if path.startswith(f"data/{split.name}-")} - set(names)
    commit = api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, path) for name, path in zip(names, files, strict=True)),
            CommitOperationAdd("README.md", card.encode()),
            *(CommitOperationDelete(path) for path in sorted(stale)),
        ],
        commit_message=commit_message or "Upload explanations",
        repo_type="dataset",
    )
    return commit.commit_url
