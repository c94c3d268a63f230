import numpy as np
import torch
from torch_geometric.nn import GATv2Conv

from detector.attention import attend


def test_it_is_what_torch_geometric_computes() -> None:
    """Also for a GPU that nobody tells anything, and whatever the order of the edges."""
    torch.manual_seed(3)
    nodes, kinds, width = 40, 4, 32
    conv = GATv2Conv(width, width // 2, heads=2, edge_dim=kinds, add_self_loops=False)
    torch.nn.init.normal_(conv.bias)
    peers, queries = torch.randn(nodes, width), 5 * torch.randn(nodes, width)
    edges, kind = torch.randint(0, nodes - 1, (2, 300)), torch.randint(0, kinds, (300,))
    with torch.inference_mode():
        expected = conv((peers, queries), edges, torch.nn.functional.one_hot(kind, kinds).float())
        found = attend(conv, peers, queries, edges, kind)
        alone = attend(conv, peers, queries, edges[:, :0], kind[:0])
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone.numpy(), conv.bias.detach().expand(nodes, -1).numpy())
