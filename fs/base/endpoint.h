/* Where and how to log in to a VM: plain data, passed from backends to fs/vm. */
#ifndef SBXFS_BASE_ENDPOINT_H
#define SBXFS_BASE_ENDPOINT_H

#include <stdbool.h>

struct endpoint {
	char host[256];		/* numeric address or DNS name */
	int port;
	char user[64];
	/*
	 * Path of the private key file; or of a public one (NAME.pub) whose private key
	 * the SSH agent holds: only that one is offered. "": the agent's keys, in its order.
	 */
	char identity[1024];
	/*
	 * The pinned host key as in known_hosts without the host: "ssh-ed25519
	 * AAAA…". Empty is refused by fs/ssh: nothing is ever accepted unseen.
	 */
	char host_key[1024];
	/*
	 * The service that the connection goes to, where it minds bursts: connections to
	 * one service are opened one at a time, gap_ms apart, and not at all for minutes
	 * after one that was not answered. "": at once.
	 */
	char service[64];
	unsigned gap_ms;
	unsigned max_connections;	/* to this VM at once; 0: as many as sbxfs sees fit */
	/*
	 * A service that lets strangers log in, and says this instead of running what
	 * was asked for; and what is wrong then. "": it does not.
	 */
	char stranger[64], stranger_why[192];
	bool lazy;		/* it has been up for long: connect when it is needed */
	bool sudo;		/* the disk is served by `sudo -n` of the guest's SFTP server */
};

#endif
