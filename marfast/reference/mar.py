"""MAR: a masked-autoencoder transformer whose predictions condition a per-token diffusion head.

arXiv 2406.11838, sections 3.3 to 3.5. Constructor arguments, method names, parameter names and
random draws are those of LTH14/mar, so that code written for it runs on this.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from marfast.reference.head import DiffLoss
from marfast.reference.transformer import Block, NormLayer


def random_orders(batch: int, seq_len: int, rng: Any = np.random) -> Tensor:
    """A random order of the tokens for each image, one shuffle each -> [batch, seq_len] int64."""
    orders = []
    for _ in range(batch):
        order = np.arange(seq_len)
        rng.shuffle(order)
        orders.append(order)
    return torch.from_numpy(np.array(orders).reshape(batch, seq_len))


def mask_lengths(seq_len: int, num_iter: int) -> list[int]:
    """How many tokens are masked before each iteration and after the last: m_0 = L … m_K.

    The cosine schedule of MaskGIT (arXiv 2202.04200), at least one token an iteration. The last
    iteration predicts all that is masked, whatever m_K says. ValueError for K outside 1 … L.
    """
    if not 1 <= num_iter <= seq_len:
        raise ValueError(f"num_iter: {num_iter}; allowed are 1 to {seq_len}, the number of tokens")
    lengths = [seq_len]
    for step in range(num_iter):
        scheduled = int(np.floor(seq_len * np.cos(math.pi / 2.0 * (step + 1) / num_iter)))
        lengths.append(max(1, min(lengths[-1] - 1, scheduled)))
    return lengths


def guidance_scale(
    cfg: float | Tensor, cfg_schedule: str, seq_len: int, next_length: int
) -> float | Tensor:
    """The guidance scale of an iteration that leaves `next_length` tokens masked.

    "linear": 1 + (cfg − 1)(L − m_{k+1})/L, a tensor [1] float32; "constant": cfg itself.
    """
    if cfg_schedule == "linear":
        known = torch.tensor([seq_len - next_length], dtype=torch.float32, device="cpu")
        return 1 + (cfg - 1) * known / seq_len
    if cfg_schedule == "constant":
        return cfg
    raise ValueError(f"cfg_schedule: {cfg_schedule!r}; allowed are 'linear' and 'constant'")


def mask_ratio(minimum: float) -> float:
    """A training mask ratio: normal around 1, std 0.25, truncated to [minimum, 1] (section 4)."""
    from scipy.stats import truncnorm

    return float(truncnorm((minimum - 1.0) / 0.25, 0, loc=1.0, scale=0.25).rvs(1)[0])


def first_in_order(orders: Tensor, count: int) -> Tensor:
    """1.0 at the first `count` tokens of each order, 0.0 elsewhere: orders [B, L] -> [B, L]."""
    mask = torch.zeros(orders.shape, device=orders.device)
    return mask.scatter(1, orders[:, :count], 1.0)


class MAR(nn.Module):
    """Masked autoregressive image generator with a diffusion head.

    An image [B, vae_embed_dim, h, w] (latents, or pixels with vae_stride 1) is a sequence of
    L = (img_size / vae_stride / patch_size)² tokens of C = vae_embed_dim · patch_size² numbers.
    `img_size` may be (height, width): a sequence of L vectors is an image of (1, L).
    `clip_denoised` clips x_0 to [−1, 1] while sampling (for tokens that are pixels).
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 256,
        vae_stride: int = 16,
        patch_size: int = 1,
        encoder_embed_dim: int = 1024,
        encoder_depth: int = 16,
        encoder_num_heads: int = 16,
        decoder_embed_dim: int = 1024,
        decoder_depth: int = 16,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_layer: NormLayer = nn.LayerNorm,
        vae_embed_dim: int = 16,
        mask_ratio_min: float = 0.7,
        label_drop_prob: float = 0.1,
        class_num: int = 1000,
        attn_dropout: float = 0.1,
        proj_dropout: float = 0.1,
        buffer_size: int = 64,
        diffloss_d: int = 3,
        diffloss_w: int = 1024,
        num_sampling_steps: str = "100",
        diffusion_batch_mul: int = 4,
        grad_checkpointing: bool = False,
        clip_denoised: bool = False,
    ):
        super().__init__()
        self.vae_embed_dim = vae_embed_dim
        self.img_size = img_size
        self.vae_stride = vae_stride
        self.patch_size = patch_size
        height, width = img_size if isinstance(img_size, tuple) else (img_size, img_size)
        self.seq_h = height // vae_stride // patch_size
        self.seq_w = width // vae_stride // patch_size
        self.seq_len = self.seq_h * self.seq_w
        self.token_embed_dim = vae_embed_dim * patch_size**2
        self.grad_checkpointing = grad_checkpointing

        self.num_classes = class_num
        self.class_emb = nn.Embedding(class_num, encoder_embed_dim)
        self.label_drop_prob = label_drop_prob
        self.fake_latent = nn.Parameter(torch.zeros(1, encoder_embed_dim))  # "no class"
        self.mask_ratio_min = mask_ratio_min

        def blocks(dim: int, num_heads: int, depth: int) -> nn.ModuleList:
            drops = {"proj_drop": proj_dropout, "attn_drop": attn_dropout}
            return nn.ModuleList(
                Block(dim, num_heads, mlp_ratio, norm_layer, **drops) for _ in range(depth)
            )

        positions = self.seq_len + buffer_size
        self.z_proj = nn.Linear(self.token_embed_dim, encoder_embed_dim)
        self.z_proj_ln = nn.LayerNorm(encoder_embed_dim, eps=1e-6)
        self.buffer_size = buffer_size
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, positions, encoder_embed_dim))
        self.encoder_blocks = blocks(encoder_embed_dim, encoder_num_heads, encoder_depth)
        self.encoder_norm = norm_layer(encoder_embed_dim)

        self.decoder_embed = nn.Linear(encoder_embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, positions, decoder_embed_dim))
        self.decoder_blocks = blocks(decoder_embed_dim, decoder_num_heads, decoder_depth)
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self.diffusion_pos_embed_learned = nn.Parameter(
            torch.zeros(1, self.seq_len, decoder_embed_dim)
        )

        self.initialize_weights()

        self.diffloss = DiffLoss(
            target_channels=self.token_embed_dim,
            z_channels=decoder_embed_dim,
            width=diffloss_w,
            depth=diffloss_d,
            num_sampling_steps=num_sampling_steps,
            grad_checkpointing=grad_checkpointing,
            clip_denoised=clip_denoised,
        )
        self.diffusion_batch_mul = diffusion_batch_mul

    def initialize_weights(self) -> None:
        for parameter in (
            self.class_emb.weight,
            self.fake_latent,
            self.mask_token,
            self.encoder_pos_embed_learned,
            self.decoder_pos_embed_learned,
            self.diffusion_pos_embed_learned,
        ):
            nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.LayerNorm) and module.weight is not None:
                nn.init.ones_(module.weight)
            if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def patchify(self, x: Tensor) -> Tensor:
        """Image [B, c, h, w] -> tokens [B, L, c·p²], row by row."""
        b, c, h, w = x.shape
        p = self.patch_size
        x = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(b, (h // p) * (w // p), c * p**2)

    def unpatchify(self, x: Tensor) -> Tensor:
        """Tokens [B, L, c·p²] -> image [B, c, h, w]."""
        b, p, c = x.shape[0], self.patch_size, self.vae_embed_dim
        x = x.reshape(b, self.seq_h, self.seq_w, c, p, p).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(b, c, self.seq_h * p, self.seq_w * p)

    def sample_orders(self, bsz: int) -> Tensor:
        """Random generation orders [B, L], from numpy's global generator."""
        return random_orders(bsz, self.seq_len).to(self.mask_token.device)

    def random_masking(self, x: Tensor, orders: Tensor) -> Tensor:
        """A training mask [B, L] (1 = masked): one random ratio for the batch, tokens by order."""
        count = int(np.ceil(self.seq_len * mask_ratio(self.mask_ratio_min)))
        return first_in_order(orders, count)

    def _with_buffer(self, mask: Tensor) -> Tensor:
        return torch.cat([mask.new_zeros(mask.shape[0], self.buffer_size), mask], dim=1)

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return x

    def forward_mae_encoder(self, x: Tensor, mask: Tensor, class_embedding: Tensor) -> Tensor:
        """Tokens [B, L, C], mask [B, L] (1 = masked), class_embedding [B, D] -> the buffer and the
        known tokens, in order of position [B, buffer_size + known, D]."""
        if self.training:
            # drawn by the CPU's generator on every device, as the original does
            dropped = (torch.rand(x.shape[0]) < self.label_drop_prob).unsqueeze(-1).to(x)
            class_embedding = dropped * self.fake_latent + (1 - dropped) * class_embedding
        buffer = class_embedding.unsqueeze(1).expand(len(x), self.buffer_size, -1)
        x = torch.cat([buffer, self.z_proj(x)], dim=1)
        x = self.z_proj_ln(x + self.encoder_pos_embed_learned)
        x = x[self._with_buffer(mask) == 0].reshape(x.shape[0], -1, x.shape[2])
        out: Tensor = self.encoder_norm(self._run(self.encoder_blocks, x))
        return out

    def forward_mae_decoder(self, x: Tensor, mask: Tensor) -> Tensor:
        """The encoder's output and its mask -> condition vectors z [B, L, D]."""
        x = self.decoder_embed(x)
        mask = self._with_buffer(mask)
        padded = self.mask_token.repeat(*mask.shape, 1).to(x.dtype)
        padded[mask == 0] = x.flatten(0, 1)
        x = self._run(self.decoder_blocks, padded + self.decoder_pos_embed_learned)
        x = self.decoder_norm(x)[:, self.buffer_size :]
        return x + self.diffusion_pos_embed_learned

    def forward_loss(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The diffusion loss of the masked tokens, each at `diffusion_batch_mul` timesteps."""
        repeats = self.diffusion_batch_mul
        return self.diffloss(  # type: ignore[no-any-return]
            z=z.flatten(0, 1).repeat(repeats, 1),
            target=target.flatten(0, 1).repeat(repeats, 1),
            mask=mask.flatten().repeat(repeats),
        )

    def forward(self, imgs: Tensor, labels: Tensor) -> Tensor:
        """The training loss of images (latents) [B, c, h, w] with labels [B] -> scalar."""
        class_embedding = self.class_emb(labels)
        x = self.patchify(imgs)
        target = x.clone().detach()
        mask = self.random_masking(x, self.sample_orders(bsz=x.shape[0]))
        z = self.forward_mae_decoder(self.forward_mae_encoder(x, mask, class_embedding), mask)
        return self.forward_loss(z=z, target=target, mask=mask)

    def sample_tokens(
        self,
        bsz: int,
        num_iter: int = 64,
        cfg: float | Tensor = 1.0,
        cfg_schedule: str = "linear",
        labels: Tensor | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        """Generate `bsz` images (latents) [bsz, c, h, w] in `num_iter` autoregressive iterations.

        labels [bsz] int64, or None for no class; cfg the guidance scale, 1 for none.
        """
        guided = bool(cfg != 1.0)
        device = self.mask_token.device
        tokens = torch.zeros(bsz, self.seq_len, self.token_embed_dim, device=device)
        orders = self.sample_orders(bsz)
        lengths = mask_lengths(self.seq_len, num_iter)
        iterations: Any = range(num_iter)
        if progress:
            from tqdm.auto import tqdm

            iterations = tqdm(iterations)
        for step in iterations:
            no_class = self.fake_latent.repeat(bsz, 1)
            class_embedding = no_class if labels is None else self.class_emb(labels)
            mask = first_in_order(orders, lengths[step])
            left = 0 if step == num_iter - 1 else lengths[step + 1]
            to_predict = (mask - first_in_order(orders, left)).bool()

            def doubled(x: Tensor) -> Tensor:
                return torch.cat([x, x]) if guided else x

            if guided:
                class_embedding = torch.cat([class_embedding, no_class])
            x = self.forward_mae_encoder(doubled(tokens), doubled(mask), class_embedding)
            z = self.forward_mae_decoder(x, doubled(mask))[doubled(to_predict)]

            scale = guidance_scale(cfg, cfg_schedule, self.seq_len, lengths[step + 1])
            if isinstance(scale, Tensor):
                scale = scale.to(device)
            sampled = self.diffloss.sample(z, temperature, scale)
            tokens = tokens.clone()
            tokens[to_predict] = sampled.chunk(2)[0] if guided else sampled
        return self.unpatchify(tokens)


def _factory(dim: int, depth: int, num_heads: int, **kwargs: Any) -> MAR:
    return MAR(
        encoder_embed_dim=dim,
        encoder_depth=depth,
        encoder_num_heads=num_heads,
        decoder_embed_dim=dim,
        decoder_depth=depth,
        decoder_num_heads=num_heads,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **kwargs,
    )


def mar_base(**kwargs: Any) -> MAR:
    """MAR-B's transformers; the paper's head for them is diffloss_d=6, diffloss_w=1024."""
    return _factory(768, 12, 12, **kwargs)


def mar_large(**kwargs: Any) -> MAR:
    """MAR-L's transformers; the paper's head for them is diffloss_d=8, diffloss_w=1280."""
    return _factory(1024, 16, 16, **kwargs)


def mar_huge(**kwargs: Any) -> MAR:
    """MAR-H's transformers; the paper's head for them is diffloss_d=12, diffloss_w=1536."""
    return _factory(1280, 20, 16, **kwargs)
