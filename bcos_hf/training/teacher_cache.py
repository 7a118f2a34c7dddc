"""A teacher's embeddings, made once and kept on disk: the file's name is a hash of the pictures, of how they are prepared, and of the teacher's weights."""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from bcos_hf.data.fingerprints import add_weights
from bcos_hf.data.image_inputs import Pictures
from bcos_hf.metrics.zero_shot import embeddings_of
from bcos_hf.models.bcos_writing import written_whole


def _hash(teacher: nn.Module, pictures: Pictures) -> str:
    digest = hashlib.sha256(f"{pictures.rows._fingerprint} {pictures.inputs.processor.to_json_string()} {pictures.inputs.broken}".encode())
    add_weights(digest, teacher)
    return digest.hexdigest()[:24]


@torch.no_grad()
def teacher_embeddings(teacher: nn.Module, pictures: Pictures, folder: str | os.PathLike, batch_size: int = 64) -> Tensor:
    """Embeddings [M, D] of a data set's pictures, not normalised, mapped from a .npy file in `folder`, which is written unless it is there."""
    path = Path(folder, f"teacher-{_hash(teacher, pictures)}.npy")
    if not path.exists():
        tower, device = getattr(teacher.eval(), "get_image_features", teacher), next(teacher.parameters()).device
        batches = tqdm(DataLoader(pictures, batch_size), desc="teacher's embeddings")
        made = torch.cat([embeddings_of(tower(pixel_values=batch["pixel_values"].to(device))).float().cpu() for batch in batches])
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, made.numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))


class TaughtPictures(Dataset):
    """Pictures with the teacher's embeddings beside them, as `teacher_embeds` [D]."""

    def __init__(self, pictures: Pictures, embeddings: Tensor) -> None:
        self.pictures, self.embeddings = pictures, embeddings

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict:
        return {**self.pictures[index], "teacher_embeds": self.embeddings[index]}
