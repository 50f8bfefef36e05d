import java.io.*;
import java.net.Socket;
import java.nio.channels.FileChannel;
import java.nio.file.*;

// Does what it is told, line by line, and says what came of it as Java's own library tells it.
public class Does {
	public static void main(String[] args) throws IOException {
		BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
		for (String line; (line = lines.readLine()) != null;) {
			String[] words = line.split(" ");
			try {
				System.out.println(does(words[0], words[1]));
			} catch (IOException e) {
				System.out.println(e);
			}
		}
	}

	static String does(String what, String argument) throws IOException {
		Path file = Path.of(argument);
		switch (what) {
		case "write":
			Files.write(file, new byte[100000]);
			return Files.size(file) + " bytes";
		case "sync":
			try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
				channel.force(true);
			}
			return "synced";
		case "read":
			return Files.readAllBytes(file).length + " bytes";
		case "read_once":
			try (FileInputStream stream = new FileInputStream(argument)) {
				return stream.read(new byte[1000]) + " bytes";
			}
		case "dial":
			new Socket("127.0.0.1", Integer.parseInt(argument)).close();
			return "connected";
		}
		throw new IllegalArgumentException(what);
	}
}
